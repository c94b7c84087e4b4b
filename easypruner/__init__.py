"""EasyPruner removes whole channels from PyTorch networks.

Importing this package is fast, because names that need torch are imported when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from easypruner.base.versions import __version__
from easypruner.hookspecs import hookimpl

if TYPE_CHECKING:
    from easypruner import budgets, regularizers, sources
    from easypruner.checkpoints.loading import load_checkpoint
    from easypruner.graph import OptimizerHandler, Transform
    from easypruner.graph.limits import Limits
    from easypruner.graph.masks import Masks
    from easypruner.integrations.pretrained import from_pretrained
    from easypruner.pipeline.pruned_model import PrunedModel
    from easypruner.runtimes import Runtime
    from easypruner.slimming import (
        Pusher,
        PushWarning,
        Slimmed,
        benchmark,
        calibrate,
        export,
        load_pruned,
        prune,
        regularize,
        slim,
        trace,
        verify,
    )
    from easypruner.strategies import (
        Budget,
        Component,
        Context,
        LayerHandler,
        MaskSource,
        Progress,
        Regularizer,
        Schedule,
        Scores,
        Stage,
    )

__all__ = [
    'Budget',
    'Component',
    'Context',
    'LayerHandler',
    'Limits',
    'MaskSource',
    'Masks',
    'OptimizerHandler',
    'Progress',
    'PrunedModel',
    'PushWarning',
    'Pusher',
    'Regularizer',
    'Runtime',
    'Schedule',
    'Scores',
    'Slimmed',
    'Stage',
    'Transform',
    '__version__',
    'benchmark',
    'budgets',
    'calibrate',
    'export',
    'from_pretrained',
    'hookimpl',
    'load_checkpoint',
    'load_pruned',
    'prune',
    'regularize',
    'regularizers',
    'slim',
    'sources',
    'trace',
    'verify',
]

_SLIMMING = (
    'PushWarning',
    'Pusher',
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
)
_MODULES = ('budgets', 'regularizers', 'sources')
_HOMES = {
    'from_pretrained': 'easypruner.integrations.pretrained',
    'load_checkpoint': 'easypruner.checkpoints.loading',
    'Limits': 'easypruner.graph.limits',
    'Masks': 'easypruner.graph.masks',
    'PrunedModel': 'easypruner.pipeline.pruned_model',
    'OptimizerHandler': 'easypruner.graph',
    'Runtime': 'easypruner.runtimes',
    'Transform': 'easypruner.graph',
    **dict.fromkeys(_SLIMMING, 'easypruner.slimming'),
}
"""Public name -> the module that defines it; ``easypruner.strategies`` defines the others."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    if name in _MODULES:
        return import_module(f'{__name__}.{name}')
    value = getattr(import_module(_HOMES.get(name, 'easypruner.strategies')), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
