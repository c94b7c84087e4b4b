"""Progress and Schedule: where training stands, and how far it can move a parameter."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from torch import Tensor
from torch.optim import Optimizer

from easypruner.toolkit.ramps import Ramp


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
            ramp: as of :mod:`easypruner.toolkit.ramps`.
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
