"""Optimizer handlers for the optimizers without a schedule or a learning rate to choose.

The packages are ``schedulefree`` and ``prodigyopt``.
"""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from easypruner import OptimizerHandler, hookimpl
from easypruner.errors import CutError
from easypruner.graph import ParameterCut
from easypruner.graph.cutting.optimizer_handler import elementwise, flattened


class ScheduleFree(OptimizerHandler):
    """Schedule-free optimizers, and those that make another optimizer schedule-free."""

    handles = (
        'schedulefree.AdamWScheduleFree',
        'schedulefree.AdamWScheduleFreeClosure',
        'schedulefree.AdamWScheduleFreePaper',
        'schedulefree.AdamWScheduleFreeReference',
        'schedulefree.RAdamScheduleFree',
        'schedulefree.RAdamScheduleFreeClosure',
        'schedulefree.SGDScheduleFree',
        'schedulefree.SGDScheduleFreeClosure',
        'schedulefree.SGDScheduleFreeReference',
        'schedulefree.ScheduleFreeWrapper',
        'schedulefree.ScheduleFreeWrapperReference',
    )
    layout: ClassVar = dict.fromkeys(('exp_avg_sq', 'x', 'y', 'z'), elementwise)
    inner = ('base',)


def _flattened_or_not(cut: ParameterCut, value: Tensor) -> Tensor:
    """Cut what Prodigy keeps in the shape of the parameter before version 1.1."""
    return (elementwise if value.dim() == len(cut.shape) else flattened)(cut, value)


class Prodigy(OptimizerHandler):
    """Prodigy: the moments, and the flattened first weights and sums of gradients."""

    handles = ('prodigyopt.Prodigy',)
    layout: ClassVar = {
        'exp_avg': elementwise,
        'exp_avg_sq': elementwise,
        's': _flattened_or_not,
        'p0': _flattened_or_not,
    }

    def cut_entry(self, key: str, value: Any, cut: ParameterCut) -> Any:
        every = cut.group.get('slice_p', 1)
        if key in ('s', 'p0') and every != 1:
            raise CutError(
                f'Prodigy keeps {key!r} of every {every}th number of {cut.name!r} (slice_p), and '
                'other numbers are in these places after a cut; use slice_p=1, or create a new '
                'optimizer after the cut'
            )
        return super().cut_entry(key, value, cut)


easypruner_components = hookimpl(lambda: [ScheduleFree, Prodigy])
