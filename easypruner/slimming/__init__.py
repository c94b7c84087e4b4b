"""Slimming: a network pruned in one line, without a config."""

from easypruner.slimming.pruning import Slimmed, slim
from easypruner.slimming.summary import SlimSummary

__all__ = ['SlimSummary', 'Slimmed', 'slim']
