"""Pull: how strongly the loss holds parameters that a regularizer brings to zero."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from easypruner.strategies.regularizers.pushing import ensure_gradients
from easypruner.strategies.regularizers.regularizer import Regularizer
from easypruner.strategies.regularizers.schedule import Progress
from easypruner.strategies.regularizers.selected import SelectedScales
from easypruner.strategies.regularizers.stepping import StepSizes

UPDATES = 32
"""The number of updates of a measurement."""
_STARTS = (0.0, 0.25, 0.5, 0.75)
"""The shares of a stage at which measurements start."""


@dataclass(frozen=True)
class Measured:
    """The pull at one point of a stage.

    Attributes:
        update: the number of updates that were done at its end.
        pull: the largest pull of an entry.
    """

    update: int
    pull: float


class PullMeter:
    """Measures the pull of the loss: the strength that would balance it, over some updates.

    Under SGD, the pull of an entry p is the part of the loss's mean gradient that leads away from
    zero, -sign(p) * dL/dp. An adaptive optimizer transforms the gradient, so there the movement of
    p in an update counts, divided by the learning rate. For an entry at zero, any direction leads
    away from zero.

    Attributes:
        found: what was measured, in the order of the updates.
        alone: the strength that would just be enough if there were no loss.
    """

    def __init__(self) -> None:
        self.found: list[Measured] = []
        self.alone = 0.0
        self._before: list[Tensor] = []
        self._sums: list[Tensor] = []
        self._updates = 0

    def is_due(self, update: int, updates: int) -> bool:
        """Tell whether an update should be measured.

        Args:
            update: the number of updates that are done.
            updates: the number of updates of the stage.
        """
        length = min(UPDATES, updates)
        starts = (round(share * updates) for share in _STARTS)
        return any(0 <= update - start < length for start in starts if start + length <= updates)

    @torch.no_grad()
    def before(self, selected: SelectedScales, adaptive: bool, progress: Progress) -> None:
        """Remember what is known before an update, and before a penalty is added to gradients.

        Args:
            selected: the entries.
            adaptive: whether the optimizer divides gradients by their own magnitude.
            progress: the progress of the training.
        """
        if adaptive:
            self._before = [tensor.detach().clone() for tensor in selected.tensors]
            return
        gradients = ensure_gradients(selected.tensors)
        scale = 1.0 if progress.grad_scale is None else progress.grad_scale
        self._before = [-gradient / scale for gradient in gradients]

    @torch.no_grad()
    def after(self, selected: SelectedScales, adaptive: bool, progress: Progress) -> bool:
        """Count an update that has just been made; return whether a measurement has ended."""
        if not self._before:
            return False
        moves = self._before
        if adaptive:
            sizes = StepSizes(progress.known_optimizer(), selected.tensors)(progress)
            rows = zip(selected.tensors, self._before, sizes, strict=True)
            moves = [
                (t - before) * (progress.times / size if size else 0) for t, before, size in rows
            ]
        self._before = []
        # Those of an interrupted stage may have been loaded to another device.
        sums = [total.to(move) for total, move in zip(self._sums, moves, strict=False)]
        sums = sums or [torch.zeros_like(move) for move in moves]
        self._sums = list(torch._foreach_add(sums, moves))
        self._updates += 1
        if self._updates < min(UPDATES, progress.updates):
            return False
        self.found.append(Measured(progress.update + 1, self._pull(selected)))
        self._sums, self._updates = [], 0
        return True

    def _pull(self, selected: SelectedScales) -> float:
        rows = zip(self._sums, selected.tensors, selected.weights, strict=True)
        largest = 0.0
        for total, tensor, weight in rows:
            outwards = torch.where(tensor != 0, total * tensor.sign(), total.abs())
            largest = max(largest, float(torch.where(weight > 0, outwards / weight, 0).max()))
        return largest / self._updates

    def forget(self) -> None:
        """Do not count an update that the optimizer has skipped."""
        self._before = []

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed stage needs."""
        return {
            'found': [asdict(measured) for measured in self.found],
            'alone': self.alone,
            'sums': self._sums,
            'updates': self._updates,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where a stage was interrupted; start anew if the state is empty."""
        found: Sequence[Mapping[str, Any]] = state.get('found', ())
        self.found = [Measured(**measured) for measured in found]
        self.alone = state.get('alone', 0.0)
        self._sums, self._updates = list(state.get('sums', ())), state.get('updates', 0)


ENOUGH = 1.5
"""The strength that brings all entries to zero, as a multiple of the pull at the start of a stage;
fitted to runs of benchmarks/push.py, see docs/push.md."""


def weak_strength(regularizer: Regularizer, meter: PullMeter) -> str:
    """Return what strength would be enough, if that of a regularizer does not overcome the loss.

    Args:
        regularizer: the regularizer.
        meter: what has measured its stage so far.

    Returns:
        the text, or '' if the strength is enough.
    """
    found = meter.found
    if not found:
        return ''
    # During the stage, the pull rises; afterwards, all of it is known.
    pull, updates = max(m.pull for m in found), min(UPDATES, found[0].update)
    needed = meter.alone + max(ENOUGH * found[0].pull, pull)
    if regularizer.strength >= needed:
        return ''
    return (
        f'the strength of {type(regularizer).__name__} is {regularizer.strength:.2g}, but the loss '
        f'pulls with up to {pull:.2g} (measured over {updates} updates); expected a strength of at '
        f'least {needed:.2g}, or strength=dict(until=1e-3), which finds it'
    )
