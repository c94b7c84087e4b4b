"""Tracing, pushing, pruning and verifying networks without a config."""

from easypruner.slimming.calibrating import calibrate
from easypruner.slimming.deploying import benchmark, export
from easypruner.slimming.pruning import Slimmed, slim
from easypruner.slimming.pusher import Pusher, PushWarning
from easypruner.slimming.regularizing import regularize
from easypruner.slimming.summary import SlimSummary
from easypruner.slimming.with_plugins import load_pruned, prune, trace, verify

__all__ = [
    'PushWarning',
    'Pusher',
    'SlimSummary',
    'Slimmed',
    'benchmark',
    'calibrate',
    'export',
    'load_pruned',
    'prune',
    'regularize',
    'slim',
    'trace',
    'verify',
]
