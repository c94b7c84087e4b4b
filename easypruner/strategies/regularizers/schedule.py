"""Schedule, Progress and ramps: the learning rates of a stage and the progress of training."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

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


Row = npt.NDArray[np.float64]


class Response(Protocol):
    """How an optimizer responds to the gradient of a penalty.

    Attributes:
        name: the name of the optimizer.
        adaptive: whether it divides a gradient by its own magnitude, as Adam does. Then a penalty
            in the gradient does not move a parameter by a distance that its strength determines.
    """

    @property
    def name(self) -> str: ...

    @property
    def adaptive(self) -> bool: ...

    def distance(self, rates: Row, gradients: Row) -> float:
        """Return how far gradients of one sign move a parameter, without a loss.

        Args:
            rates: the learning rate of each update.
            gradients: the gradient at each update.
        """
        ...


@dataclass(frozen=True)
class MomentumResponse:
    """The response of SGD, from its update rule.

    Attributes:
        momentum: the momentum.
        dampening: the dampening of the momentum.
        nesterov: whether the momentum is Nesterov's.
        name: the name of the optimizer.
    """

    momentum: float = 0.0
    dampening: float = 0.0
    nesterov: bool = False
    name: str = 'SGD'
    adaptive: ClassVar[bool] = False

    def distance(self, rates: Row, gradients: Row) -> float:
        steps = self._accumulated(gradients)
        if self.nesterov:
            steps = gradients + self.momentum * steps
        return float(rates @ steps)

    def _accumulated(self, gradients: Row) -> Row:
        """Return the momentum at each update."""
        total = gradients * (1 - self.dampening)
        total[:1] = gradients[:1]
        span = 1
        # Sums over 2, 4, 8, ... updates, until what is further back does not count.
        while span < len(total) and self.momentum**span > np.finfo(float).eps:
            total[span:] += self.momentum**span * total[:-span].copy()
            span *= 2
        return total


@dataclass(frozen=True)
class Schedule:
    """The optimizer's schedule over one training stage.

    Attributes:
        lr_sum: the sum of the learning rates of all optimizer updates.
        momentum: the momentum of the optimizer; 0 if it has none, or is adaptive.
        updates: the number of optimizer updates.
        rates: the learning rate of each update; None if only their sum is known.
        response: how the optimizer responds to gradients; None for SGD with the momentum.
        by_parameter: name of a parameter -> the schedule of its parameter group, for optimizers
            whose groups differ. Empty if this schedule is that of all parameters.
    """

    lr_sum: float
    momentum: float
    updates: int
    rates: Row | None = field(default=None, compare=False, repr=False)
    response: Response | None = field(default=None, compare=False, repr=False)
    by_parameter: Mapping[str, Schedule] = field(default_factory=dict, compare=False, repr=False)

    @property
    def optimizer(self) -> Response:
        """How the optimizer responds to gradients."""
        return self.response or MomentumResponse(self.momentum)

    def slowest(self, parameters: Iterable[str]) -> Schedule:
        """Return the schedule of the parameter with the lowest sum of learning rates.

        Args:
            parameters: names of parameters; those that the optimizer does not train are skipped.
        """
        found = [self.by_parameter[name] for name in parameters if name in self.by_parameter]
        return min(found, key=lambda schedule: schedule.lr_sum, default=self)

    def reach_under(self, ramp: Ramp, strength: float = 1.0, proximal: bool = False) -> float:
        """Return the furthest that a penalty alone can move a parameter over the stage.

        Args:
            ramp: the factor of the strength, for each share of the stage that is done.
            strength: the strength of the penalty at a factor of 1.
            proximal: whether the penalty is a threshold of lr * strength / (1 - momentum) after
                each update, instead of a gradient of the strength before it.
        """
        if not self.updates:
            return 0.0
        rates = self.rates
        if rates is None:
            rates = np.full(self.updates, self.lr_sum / self.updates)
        strengths = strength * np.asarray(ramp(np.arange(self.updates) / self.updates), dtype=float)
        if proximal:
            return float(rates @ strengths) / (1 - self.momentum)
        return self.optimizer.distance(rates, strengths)


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
        momentum: the momentum that a threshold makes up for; see :meth:`Regularizer.shrink`.
        times: the number of updates that a push stands for.
    """

    update: int
    updates: int
    grad_scale: Tensor | None = None
    lr: float = 0.0
    optimizer: Optimizer | None = field(default=None, compare=False, repr=False)
    momentum: float = 0.0
    times: int = 1

    def known_optimizer(self) -> Optimizer:
        """Return the optimizer.

        Raises:
            ConfigError: it is not known, but the proximal form needs its learning rates.
        """
        if self.optimizer is None:
            raise ConfigError(
                'the proximal form needs the optimizer, but the progress has none; create it as '
                'Progress(update, updates, optimizer=optimizer)'
            )
        return self.optimizer

    @property
    def share(self) -> float:
        """The share of the stage that is done, in 0..1."""
        return self.update / self.updates if self.updates else 0.0
