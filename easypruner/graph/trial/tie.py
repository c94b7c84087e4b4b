"""A tie: two widths that code derives from each other are coupled index by index."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from easypruner.graph.coupling.axes import Axis
from easypruner.graph.recording.tape import Operation
from easypruner.graph.trial.expected import Location
from easypruner.graph.trial.trial import Trial


@dataclass(frozen=True)
class Tie:
    """Axes whose widths keep their ratio, because code derives them from each other.

    Code such as ``channels // self.num_heads`` is right only if both widths shrink in proportion.
    The tape does not say which widths these are. So a trial is run with two of them coupled index
    by index. The pair is kept if the trial then gets past the operation that failed.

    Attributes:
        wide: the location of the axis with more indices, relative to the operation that failed.
        narrow: the locations of the others, all of one size. A number is that of an axis among
            those near the operation.
        inner: whether a narrow axis varies faster within the wide one.
        by_unit: whether indices are coupled in the order of their units, if both have one size. So
            few units are joined where those of one axis are not as wide as those of the other.
    """

    wide: Location
    narrow: tuple[Location | int, ...]
    inner: bool
    by_unit: bool = False

    def indices(self, trial: Trial, operation: Operation) -> int:
        """Return how many indices the tie couples at an operation. The fewer, the likelier."""
        wide = trial.expected.find_axis(operation, self.wide)
        return wide.size * len(self.narrow) if wide is not None else 0

    def fits_evenly(self, trial: Trial, operation: Operation) -> bool:
        """Return whether all axes have one size at an operation."""
        found = (trial.expected.find_axis(operation, place) for place in (self.wide, *self.narrow))
        return len({axis.size for axis in found if axis is not None}) == 1

    def couple(self, trial: Trial, operation: Operation, binding: bool = False) -> None:
        """Couple the axes at an operation index by index, if they fit.

        Args:
            trial: knows the axes.
            operation: the operation.
            binding: whether an axis stays if the other one has to. Where a tie is only tried, some
                indices must go from both, so that it does not get past a failure by that.
        """
        wide = trial.expected.find_axis(operation, self.wide)
        if wide is None:
            return
        for location in self.narrow:
            narrow = trial.expected.find_axis(operation, location)
            if narrow is None or not narrow.size or wide.size % narrow.size:
                continue
            times = wide.size // narrow.size
            follower = narrow.tiled(times) if self.inner else narrow.repeated(times)
            if self.by_unit:
                wide, follower = (_sorted_by_unit(trial, axis) for axis in (wide, follower))
            if binding or can_go(trial, wide, follower):
                trial.coupling.edges.couple(wide, follower)


def can_go(trial: Trial, *axes: Axis) -> bool:
    """Return whether there are several units that may go at positions of all the axes."""
    free = np.logical_and.reduce([axis.ids >= 0 for axis in axes])
    units = np.stack([trial.parts.unit_of[axis.ids[free]] for axis in axes])
    may_go = units[0, (units >= 0).all(axis=0)]
    return bool((may_go != may_go[:1]).any())


def _sorted_by_unit(trial: Trial, axis: Axis) -> Axis:
    """Return an axis with the indices of each unit next to each other, wider units last."""
    units = np.where(axis.ids < 0, -1, trial.parts.unit_of[axis.ids])
    _, numbers, widths = np.unique(units, return_inverse=True, return_counts=True)
    return Axis(axis.ids[np.lexsort((numbers, widths[numbers]))])
