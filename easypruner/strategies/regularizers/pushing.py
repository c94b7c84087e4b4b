"""Pushing: what all regularizers need in a step. Plans made once, gradients to add to, factors."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from easypruner.errors import EasyPrunerError
from easypruner.graph import ChannelGraph
from easypruner.graph.masks import Masks
from easypruner.strategies.regularizers.schedule import Progress

_Plan = TypeVar('_Plan')

Places = Mapping[tuple[str, int], Tensor]
"""(parameter, dim) -> a value for each index of that dimension."""


class PlanOnce(Generic[_Plan]):
    """What a regularizer does in a step, worked out once for a graph and masks.

    It is worked out anew for another graph or other masks, and after a cut.

    Args:
        make: works it out.
    """

    def __init__(self, make: Callable[[ChannelGraph, Masks | None], _Plan]) -> None:
        self._make = make
        self._made: tuple[ChannelGraph, Mapping[str, Any], Masks | None, _Plan] | None = None

    def __call__(self, graph: ChannelGraph, masks: Masks | None) -> _Plan:
        made = self._made
        # A cut leaves the graph what it is, but gives it new groups.
        if made is not None and made[0] is graph and made[1] is graph.groups and made[2] is masks:
            return made[3]
        plan = self._make(graph, masks)
        self._made = (graph, graph.groups, masks, plan)
        return plan


def gradients(parameters: Iterable[Tensor]) -> list[Tensor]:
    """Return the gradients of parameters, which are made of zeros where there are none."""
    found = []
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        found.append(parameter.grad)
    return found


def scaled(value: float, progress: Progress) -> float | Tensor:
    """Return a factor of gradients as large as they are at this point of the step."""
    return value if progress.grad_scale is None else progress.grad_scale * value


def shrinking_reach(largest: float) -> float:
    """Return the reach that a penalty needs which shrinks values by a share of themselves.

    Its reach is the exponent: this much leaves a hundredth of them.

    Args:
        largest: magnitude that has to come down.
    """
    return math.log(100.0) if largest > 0 else 0.0


def check_numbers(names: Sequence[str], tensors: Sequence[Tensor], owner: str) -> None:
    """Raise EasyPrunerError if a parameter has entries that are not numbers.

    Args:
        names: of the parameters.
        tensors: the parameters.
        owner: the regularizer that pushes them, for the message.
    """
    for name, tensor in zip(names, tensors, strict=True):
        if bad := int(tensor.isnan().sum()):
            raise EasyPrunerError(
                f'{owner} pushes {name!r}, of which {bad} of {tensor.numel()} entries are NaN; '
                'the training before has diverged, or the weights are damaged'
            )


def group_places(graph: ChannelGraph, values: Mapping[str, float]) -> dict[tuple[str, int], Tensor]:
    """Return (parameter, dim) -> the value of the group that each index belongs to, 1 for none.

    Args:
        graph: of the model.
        values: group -> value; what has only ones is left out.
    """
    places: dict[tuple[str, int], Tensor] = {}
    for name, value in values.items():
        if value == 1:
            continue
        for member in graph.groups[name].members:
            size = graph.parameter(member.param).shape[member.dim]
            ones = torch.ones(size, dtype=torch.float64)
            place = places.setdefault((member.param, member.dim), ones)
            place[member.index] = value
    return places
