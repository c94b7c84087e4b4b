"""Schedule, Progress and ramps: where training stands, and how far it can move a parameter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor
from torch.optim import Optimizer

from easypruner.base.checks import is_number
from easypruner.errors import ConfigError, nearest

Ramp = Callable[[Any], Any]
"""Share of the stage that is done, in 0..1 -> factor of the strength, in 0..1; arrays too."""


_WARMUP = 0.1


def _warmup(part: float) -> Ramp:
    return lambda share: np.minimum(np.asarray(share) / part, 1.0)


RAMPS: dict[str, Ramp] = {
    'constant': lambda share: np.ones_like(share, dtype=float),
    'linear': lambda share: np.asarray(share, dtype=float),
    'cosine': lambda share: (1 - np.cos(np.pi * np.asarray(share))) / 2,
    'warmup': _warmup(_WARMUP),
}
"""Constant; growing from 0 to 1 linearly or along half a cosine; linearly over the first tenth."""


def ramp_of(schedule: str | Mapping[str, float], owner: str) -> Ramp:
    """Return the ramp that a ``strength_schedule`` names.

    Args:
        schedule: a name of :data:`RAMPS`, or ``dict(warmup=share of the stage)``.
        owner: whose argument it is, for the message.

    Raises:
        ConfigError: neither.

    >>> float(ramp_of('linear', 'GReg')(0.25)), float(ramp_of({'warmup': 0.5}, 'GReg')(0.25))
    (0.25, 0.5)
    """
    if isinstance(schedule, Mapping) and set(schedule) == {'warmup'}:
        part = schedule['warmup']
        if is_number(part) and 0 < part <= 1:
            return _warmup(part)
    elif isinstance(schedule, str) and schedule in RAMPS:
        return RAMPS[schedule]
    hint = nearest(schedule, RAMPS) if isinstance(schedule, str) else f'names: {", ".join(RAMPS)}'
    raise ConfigError(
        f'strength_schedule={schedule!r} of {owner} is not understood; expected a name, or '
        f'dict(warmup=0.2) with a share above 0 and up to 1; {hint}'
    )


@dataclass(frozen=True)
class Schedule:
    """The optimizer's schedule over one training stage.

    Attributes:
        lr_sum: the sum of the learning rate over all optimizer updates.
        momentum: of the optimizer, 0 where it has none.
        updates: the number of optimizer updates.
        rates: the learning rate of each update; None where only their sum is known.
    """

    lr_sum: float
    momentum: float
    updates: int
    rates: npt.NDArray[np.float64] | None = field(default=None, compare=False, repr=False)

    @property
    def reach_per_strength(self) -> float:
        """How far a penalty of strength 1 alone moves a parameter over the stage."""
        return self.lr_sum / (1.0 - self.momentum)

    def reach_under(self, ramp: Ramp) -> float:
        """Return the reach of strength 1 where it is multiplied by a function of the progress.

        Args:
            ramp: a factor for each share of the stage that is done.
        """
        if not self.updates:
            return 0.0
        factors = ramp(np.arange(self.updates) / self.updates)
        if self.rates is None:
            return self.reach_per_strength * float(factors.mean())
        return float(factors @ self.rates) / (1.0 - self.momentum)


@dataclass(frozen=True)
class Progress:
    """Where training stands when a regularizer is called.

    Attributes:
        update: optimizer updates done so far in this stage.
        updates: optimizer updates of the whole stage.
        grad_scale: what gradients are multiplied with at this point (fused optimizers under a
            GradScaler), else None.
        lr: the learning rate of this update, of the optimizer's first parameter group.
        optimizer: that is about to step, for rules that concern its momentum; None where unknown.
    """

    update: int
    updates: int
    grad_scale: Tensor | None = None
    lr: float = 0.0
    optimizer: Optimizer | None = field(default=None, compare=False, repr=False)

    @property
    def share(self) -> float:
        """The share of the stage that is done, in 0..1."""
        return self.update / self.updates if self.updates else 0.0
