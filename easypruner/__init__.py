"""EasyPruner: prune whole channels of PyTorch networks, and compose how they are chosen.

Importing it is cheap: what needs torch is loaded at first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from easypruner.hookspecs import hookimpl

if TYPE_CHECKING:
    from easypruner.contracts import (
        Budget,
        Component,
        Context,
        LayerHandler,
        MaskSource,
        Progress,
        Regularizer,
        Schedule,
        Stage,
    )
    from easypruner.graph import load_pruned, prune, trace
    from easypruner.graph.verify import verify
    from easypruner.limits import Limits
    from easypruner.masks import Masks
    from easypruner.models.pruned import PrunedModel
    from easypruner.slimming import Slimmed, slim

__version__ = '2.0.0.dev0'

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
    'Stage',
)
_HOMES = {
    **dict.fromkeys(_CONTRACTS, 'easypruner.contracts'),
    **dict.fromkeys(('load_pruned', 'prune', 'trace', 'verify'), 'easypruner.graph'),
    'Limits': 'easypruner.limits',
    'Masks': 'easypruner.masks',
    'PrunedModel': 'easypruner.models.pruned',
    **dict.fromkeys(('Slimmed', 'slim'), 'easypruner.slimming'),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
