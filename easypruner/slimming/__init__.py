"""Tracing, pruning and verifying networks without a config."""

from easypruner.slimming.pruning import Slimmed, slim
from easypruner.slimming.summary import SlimSummary
from easypruner.slimming.with_plugins import load_pruned, prune, trace, verify

__all__ = ['SlimSummary', 'Slimmed', 'load_pruned', 'prune', 'slim', 'trace', 'verify']
