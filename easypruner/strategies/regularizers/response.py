"""How optimizers respond to the gradient of a penalty, found by running them on one parameter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim import SGD, Optimizer

from easypruner.errors import ConfigError
from easypruner.strategies.regularizers.schedule import MomentumResponse, Response, Row

_MOST_UPDATES = 4096
"""The most updates that are simulated; a longer schedule is compressed."""
_TRIAL_UPDATES = 20
_TRIAL_RATE = 1e-3
_TRIAL_GRADIENT = 1e-3
_CLOSE = 0.05
_NO_DECAY = 1e-12


@dataclass(frozen=True)
class SimulatedResponse:
    """The response of any optimizer, from updates of a parameter that has no loss.

    Attributes:
        optimizer: the class of the optimizer.
        options: the options of the parameter group.
        dims: the number of dimensions of the parameter. Muon treats matrices in another way.
    """

    optimizer: Callable[..., Optimizer]
    options: Mapping[str, Any] = field(repr=False)
    dims: int = 1

    @property
    def name(self) -> str:
        """The name of the optimizer."""
        return str(self.optimizer.__name__)

    @cached_property
    def adaptive(self) -> bool:
        """Whether it moves a parameter by a distance that is not proportional to the gradient."""
        rates, gradients = (np.full(_TRIAL_UPDATES, x) for x in (_TRIAL_RATE, _TRIAL_GRADIENT))
        try:
            small, large = (self.distance(rates, gradients * factor) for factor in (1, 10))
        except ConfigError:
            # Nothing is known; only a penalty needs to know it, and then asks for the distance.
            return False
        return abs(large - 10 * small) > _CLOSE * abs(large)

    def distance(self, rates: Row, gradients: Row) -> float:
        try:
            return self._simulated(rates, gradients)
        except Exception as error:
            raise ConfigError(
                f'the optimizer {self.name} cannot be run on a single parameter, so the reach of a '
                f'penalty under it is not known ({type(error).__name__}: {error}); set '
                "apply='proximal', whose reach does not depend on the optimizer"
            ) from error

    def _simulated(self, rates: Row, gradients: Row) -> float:
        parameter = nn.Parameter(torch.ones([1] * self.dims, dtype=torch.float64))
        group = {**self.options, 'params': [parameter]}
        # Not 0: Lamb and LARS adapt the step of parameters with a decay.
        group['weight_decay'] = min(group.get('weight_decay') or 0.0, _NO_DECAY)
        optimizer = self.optimizer([group], lr=float(self.options['lr']))
        set_mode(optimizer, 'train')
        for rate, gradient in zip(*_compressed(rates, gradients), strict=True):
            optimizer.param_groups[0]['lr'] = float(rate)
            parameter.grad = torch.full_like(parameter, float(gradient))
            optimizer.step()
        set_mode(optimizer, 'eval')
        return 1 - parameter.item()


def response_of(optimizer: Optimizer, group: Mapping[str, Any], dims: int) -> Response:
    """Return how an optimizer responds to gradients.

    Args:
        optimizer: the optimizer, before its first update.
        group: one of its parameter groups.
        dims: the number of dimensions of the parameter.
    """
    # A ZeroRedundancyOptimizer distributes another optimizer over processes.
    optimizer = getattr(optimizer, 'optim', optimizer)
    if type(optimizer) is SGD:
        return MomentumResponse(group['momentum'], group['dampening'], group['nesterov'])
    options = {name: value for name, value in group.items() if name != 'params'}
    return SimulatedResponse(type(optimizer), options, dims)


def _compressed(rates: Row, gradients: Row) -> tuple[Row, Row]:
    """Return a schedule of at most :data:`_MOST_UPDATES` updates with the same sums."""
    if len(rates) <= _MOST_UPDATES:
        return rates, gradients
    ends = np.linspace(0, len(rates), _MOST_UPDATES + 1).astype(int)[:-1]
    sums = np.add.reduceat(rates, ends)
    pushes = np.add.reduceat(rates * gradients, ends)
    return sums, np.divide(pushes, sums, out=np.zeros_like(pushes), where=sums > 0)


def set_mode(optimizer: Optimizer, mode: str) -> None:
    """Switch an optimizer that has modes, such as a schedule-free one, to ``train`` or ``eval``."""
    if callable(switch := getattr(optimizer, mode, None)):
        switch()
