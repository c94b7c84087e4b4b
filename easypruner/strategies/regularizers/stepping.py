"""What an update of an optimizer moves: learning rates and averages of single parameters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.optim import Optimizer

from easypruner.strategies.regularizers.schedule import Progress

_AVERAGED = 'z'
"""The state in which schedule-free optimizers keep the weights that they average."""


class StepSizes:
    """The learning rates of parameters, each from its own parameter group.

    Args:
        optimizer: the optimizer.
        parameters: the parameters; one that the optimizer does not train has the rate 0.
    """

    def __init__(self, optimizer: Optimizer, parameters: Sequence[Tensor]) -> None:
        groups = {id(p): n for n, g in enumerate(optimizer.param_groups) for p in g['params']}
        self._groups = optimizer.param_groups
        self.group_of = [groups.get(id(parameter), -1) for parameter in parameters]

    def __call__(self, progress: Progress) -> list[float]:
        """Return the distance that a push of strength 1 moves each parameter now."""
        factor = progress.times / (1 - progress.momentum)
        sizes = [factor * float(group['lr']) for group in self._groups]
        return [sizes[group] if group >= 0 else 0.0 for group in self.group_of]


def by_size(
    parameters: Sequence[Tensor], optimizer: Optimizer, progress: Progress
) -> Iterator[tuple[frozenset[int], float]]:
    """Yield the ids of the parameters with the same step size, and this size."""
    sizes = StepSizes(optimizer, parameters)(progress)
    for size in dict.fromkeys(sizes):
        same = (id(p) for p, own in zip(parameters, sizes, strict=True) if own == size)
        yield frozenset(same), size


def with_states(optimizer: Optimizer, parameter: Tensor) -> list[Tensor]:
    """Return a parameter, and the state of the optimizer that must move with it.

    A schedule-free optimizer trains with a mixture of two sets of weights; the parameter is the
    mixture, and one of the sets is a state.
    """
    state = optimizer.state.get(parameter, {}).get(_AVERAGED)
    return [parameter.data] if state is None else [parameter.data, state]


def move_to_zero(parameter: Tensor, distances: Tensor, optimizer: Optimizer) -> None:
    """Subtract distances from a parameter, in place; entries that change their sign become zero.

    What else the optimizer averages moves towards zero by the same shares.
    """
    values, *others = with_states(optimizer, parameter)
    # Not "> 0, values - distances, 0", which would turn a distance of NaN into a zero.
    moved = torch.where((values - distances) * values <= 0, 0, values - distances)
    left = torch.where(values != 0, moved / values, 1)
    for other in others:
        other.mul_(left)
    values.copy_(torch.where(distances != 0, moved, values))
