"""The stages a run is made of; a plugin like any other contributes them."""

from __future__ import annotations

from collections.abc import Iterable

from easypruner.contracts import Component
from easypruner.hookspecs import hookimpl
from easypruner.pipeline.stages.calibrate import Calibrate
from easypruner.pipeline.stages.evaluate import Evaluate
from easypruner.pipeline.stages.masks import LoadMask, SelectMask
from easypruner.pipeline.stages.prune import Prune
from easypruner.pipeline.stages.report import Report
from easypruner.pipeline.stages.train import Train

__all__ = ['Calibrate', 'Evaluate', 'LoadMask', 'Prune', 'Report', 'SelectMask', 'Train']


@hookimpl
def easypruner_components() -> Iterable[type[Component]]:
    return [Train, SelectMask, LoadMask, Prune, Calibrate, Evaluate, Report]
