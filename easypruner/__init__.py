"""EasyPruner: prune whole channels of PyTorch networks, and compose how they are chosen.

Importing it is cheap: what needs torch is loaded at first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from easypruner.base.versions import __version__
from easypruner.hookspecs import hookimpl

if TYPE_CHECKING:
    from easypruner.graph.limits import Limits
    from easypruner.graph.masks import Masks
    from easypruner.pipeline.pruned_model import PrunedModel
    from easypruner.slimming import Slimmed, load_pruned, prune, slim, trace, verify
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
    'Progress',
    'PrunedModel',
    'Regularizer',
    'Schedule',
    'Scores',
    'Slimmed',
    'Stage',
    '__version__',
    'hookimpl',
    'load_pruned',
    'prune',
    'slim',
    'trace',
    'verify',
]

_CONTRACTS = (
    'Budget',
    'Component',
    'Context',
    'LayerHandler',
    'MaskSource',
    'Progress',
    'Regularizer',
    'Schedule',
    'Scores',
    'Stage',
)
_FUNCTIONS = ('Slimmed', 'load_pruned', 'prune', 'slim', 'trace', 'verify')
_HOMES = {
    **dict.fromkeys(_CONTRACTS, 'easypruner.strategies'),
    'Limits': 'easypruner.graph.limits',
    'Masks': 'easypruner.graph.masks',
    'PrunedModel': 'easypruner.pipeline.pruned_model',
    **dict.fromkeys(_FUNCTIONS, 'easypruner.slimming'),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
