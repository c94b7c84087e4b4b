"""Health: numbers of a training stage that must be finite, noted now and looked at later."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

_PATIENCE = 20
"""The number of losses in a row that may be infinite while updates are skipped."""

_DIVERGED = 10.0
"""The factor by which losses rise in a training that has diverged; 1 is added to the first loss."""

LOSS = 'loss'


@dataclass(frozen=True)
class Note:
    """Numbers of an iteration that must be finite, still on the device.

    Attributes:
        iteration: the number of the iteration in the stage, from 0.
        source: what made them: :data:`LOSS`, ``'gradient'``, or a plugin's method in words.
        values: the numbers.
    """

    iteration: int
    source: str
    values: Tensor


@dataclass(frozen=True)
class Found:
    """The first numbers that were not finite.

    Attributes:
        iteration: the number of the iteration in the stage, from 0.
        source: what made them.
        value: ``'nan'`` or ``'infinite'``.
        lasting: whether the losses since then, at least twenty, have not been finite either.
    """

    iteration: int
    source: str
    value: str
    lasting: bool = False


class Health:
    """Collects numbers that must be finite. Nothing waits for the device until :meth:`look`.

    Attributes:
        first_loss: the first loss of the stage; None until it is looked at.
        last_losses: the losses that were seen at the last look.
    """

    def __init__(self) -> None:
        self.first_loss: float | None = None
        self.last_losses: list[float] = []
        self._notes: list[Note] = []
        self._first: Found | None = None
        self._bad_losses = 0

    def note(self, iteration: int, source: str, values: Tensor) -> None:
        """Add numbers, in the order in which they were computed."""
        self._notes.append(Note(iteration, source, values.detach()))

    def look(self) -> Found | None:
        """Return the first numbers that were not finite; forget the numbers.

        Numbers are only reported until a later loss is finite: then the update was skipped, as a
        GradScaler does, and nothing was lost.
        """
        notes = sorted(self._notes, key=lambda note: (note.iteration, note.source != LOSS))
        self._notes = []
        numbers = _largest(notes)
        pairs = zip(notes, numbers, strict=True)
        losses = [number for note, number in pairs if note.source == LOSS]
        self.last_losses = losses or self.last_losses
        if losses and self.first_loss is None:
            self.first_loss = losses[0]
        for note, largest in zip(notes, numbers, strict=True):
            if not math.isfinite(largest):
                value = 'nan' if math.isnan(largest) else 'infinite'
                self._first = self._first or Found(note.iteration, note.source, value)
            if note.source == LOSS:
                self._count(note.iteration, math.isfinite(largest))
        lasting = self._bad_losses >= _PATIENCE
        return self._first and replace(self._first, lasting=lasting)

    @property
    def warning(self) -> str:
        """A warning if the losses at the end are far above the first one, or ''."""
        if self.first_loss is None or not self.last_losses:
            return ''
        last = statistics.median(self.last_losses)
        if last <= _DIVERGED * (self.first_loss + 1):
            return ''
        return (
            f'the loss rose from {self.first_loss:.2g} to {last:.2g}: the training has diverged, '
            'though its weights are finite; use a lower learning rate, a warm-up, or '
            'optim_wrapper=dict(clip_grad=dict(max_norm=1.0))'
        )

    def _count(self, iteration: int, is_finite: bool) -> None:
        self._bad_losses = 0 if is_finite else self._bad_losses + 1
        if is_finite and self._first is not None and self._first.iteration < iteration:
            self._first = None


def _largest(notes: Sequence[Note]) -> list[float]:
    """Return the largest magnitude of each note, with one transfer for all."""
    if not notes:
        return []
    values = [note.values.reshape(-1).abs() for note in notes]
    device = values[0].device
    largest = [v.amax() if v.numel() else v.new_zeros(()) for v in values]
    return [float(x) for x in torch.stack([x.float().to(device) for x in largest]).tolist()]
