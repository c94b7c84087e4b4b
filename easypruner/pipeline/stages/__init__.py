"""The built-in stages. A plugin like any other contributes them."""

from __future__ import annotations

from collections.abc import Iterable

from easypruner.hookspecs import hookimpl
from easypruner.pipeline.stages.distill import Distill
from easypruner.pipeline.stages.export import Export
from easypruner.pipeline.stages.iterative import Iterative
from easypruner.pipeline.stages.masks import LoadMask, SelectMask
from easypruner.pipeline.stages.prune import Calibrate, Prune, Zero
from easypruner.pipeline.stages.reinitialise import Reinitialise
from easypruner.pipeline.stages.report import Evaluate, Report
from easypruner.pipeline.stages.rewind import Rewind
from easypruner.pipeline.stages.train import Train
from easypruner.strategies import Component

__all__ = [
    'Calibrate',
    'Distill',
    'Evaluate',
    'Export',
    'Iterative',
    'LoadMask',
    'Prune',
    'Reinitialise',
    'Report',
    'Rewind',
    'SelectMask',
    'Train',
    'Zero',
]


@hookimpl
def easypruner_components() -> Iterable[type[Component]]:
    return [globals()[name] for name in __all__]
