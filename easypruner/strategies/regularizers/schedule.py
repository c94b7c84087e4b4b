"""Schedule, Progress and ramps: the learning rates of a stage and the progress of training."""

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
"""Share of the stage that is done -> factor of the strength, both from 0 to 1; also for arrays."""


_WARMUP = 0.1


def _warmup(part: float) -> Ramp:
    return lambda share: np.minimum(np.asarray(share) / part, 1.0)


RAMPS: dict[str, Ramp] = {
    'constant': lambda share: np.ones_like(share, dtype=float),
    'linear': lambda share: np.asarray(share, dtype=float),
    'cosine': lambda share: (1 - np.cos(np.pi * np.asarray(share))) / 2,
    'warmup': _warmup(_WARMUP),
}
"""Name -> ramp: constant, linear from 0 to 1, a half cosine from 0 to 1, or linear over the first
tenth and then constant."""


def ramp_of(schedule: str | Mapping[str, float], owner: str) -> Ramp:
    """Return the ramp for a ``strength_schedule``.

    Args:
        schedule: a name of :data:`RAMPS`, or ``dict(warmup=share of the stage)``.
        owner: the name of the regularizer, for the message.

    Raises:
        ConfigError: it is neither of these.

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
        f'strength_schedule={schedule!r} of {owner}; expected a name, or dict(warmup=share) with '
        f'a share above 0 and up to 1; {hint}'
    )


@dataclass(frozen=True)
class Schedule:
    """The optimizer's schedule over one training stage.

    Attributes:
        lr_sum: the sum of the learning rates of all optimizer updates.
        momentum: the momentum of the optimizer; 0 if it has none.
        updates: the number of optimizer updates.
        rates: the learning rate of each update; None if only their sum is known.
    """

    lr_sum: float
    momentum: float
    updates: int
    rates: npt.NDArray[np.float64] | None = field(default=None, compare=False, repr=False)

    @property
    def reach_per_strength(self) -> float:
        """The furthest that a penalty of strength 1 alone can move a parameter over the stage."""
        return self.lr_sum / (1.0 - self.momentum)

    def reach_under(self, ramp: Ramp) -> float:
        """Return the reach of a penalty of strength 1 that is multiplied by a ramp.

        Args:
            ramp: the factor of the strength, for each share of the stage that is done.
        """
        if not self.updates:
            return 0.0
        factors = ramp(np.arange(self.updates) / self.updates)
        if self.rates is None:
            return self.reach_per_strength * float(factors.mean())
        return float(factors @ self.rates) / (1.0 - self.momentum)


@dataclass(frozen=True)
class Progress:
    """The progress of training when a regularizer is called.

    Attributes:
        update: the number of optimizer updates done in this stage.
        updates: the number of optimizer updates of the whole stage.
        grad_scale: the factor that gradients are multiplied with at this point, as with a fused
            optimizer under a GradScaler; None for no factor.
        lr: the learning rate of this update, from the optimizer's first parameter group.
        optimizer: the optimizer, for rules that change its momentum; None if unknown.
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
