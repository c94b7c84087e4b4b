"""Helpers of all regularizers: cached preparations, gradients to add to, factors."""

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

_Prepared = TypeVar('_Prepared')

IndexValues = Mapping[tuple[str, int], Tensor]
"""(parameter, dimension) -> a value for each index of that dimension."""


class PreparedOnce(Generic[_Prepared]):
    """Caches what a regularizer prepares for its updates.

    It is prepared again for another graph or other masks, and after a cut.

    Args:
        prepare: the function to cache.
    """

    def __init__(self, prepare: Callable[[ChannelGraph, Masks | None], _Prepared]) -> None:
        self._prepare = prepare
        self._known: tuple[ChannelGraph, Mapping[str, Any], Masks | None, _Prepared] | None = None

    def __call__(self, graph: ChannelGraph, masks: Masks | None) -> _Prepared:
        known = self._known
        # A cut keeps the graph object, but gives it new groups.
        if known and known[0] is graph and known[1] is graph.groups and known[2] is masks:
            return known[3]
        prepared = self._prepare(graph, masks)
        self._known = (graph, graph.groups, masks, prepared)
        return prepared


def ensure_gradients(parameters: Iterable[Tensor]) -> list[Tensor]:
    """Return the gradients of parameters; those without a gradient get one of zeros."""
    found = []
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        found.append(parameter.grad)
    return found


def in_gradient_scale(value: float, progress: Progress) -> float | Tensor:
    """Return a factor of gradients, multiplied with the scale that gradients have now."""
    return value if progress.grad_scale is None else progress.grad_scale * value


def shrinking_reach(largest: float) -> float:
    """Return the reach that is needed by a penalty under which values shrink exponentially.

    The reach of such a penalty is the exponent. This one leaves a hundredth of each value.

    Args:
        largest: the largest magnitude that must shrink.
    """
    return math.log(100.0) if largest > 0 else 0.0


def check_not_nan(names: Sequence[str], tensors: Sequence[Tensor], owner: str) -> None:
    """Raise EasyPrunerError if a parameter has NaN entries.

    Args:
        names: the names of the parameters.
        tensors: the parameters.
        owner: the name of the regularizer, for the message.
    """
    for name, tensor in zip(names, tensors, strict=True):
        if bad := int(tensor.isnan().sum()):
            raise EasyPrunerError(
                f'{owner} pushes {name!r}, of which {bad} of {tensor.numel()} entries are NaN; '
                'the previous training has diverged, or the weights are damaged'
            )


def group_values(graph: ChannelGraph, values: Mapping[str, float]) -> dict[tuple[str, int], Tensor]:
    """Spread a value of each group over the indices of its members.

    Args:
        graph: the channel graph of the model.
        values: group -> value.

    Returns:
        (parameter, dimension) -> values of the indices, 1 for indices outside of these groups. A
        dimension with only ones is left out.
    """
    found: dict[tuple[str, int], Tensor] = {}
    for name, value in values.items():
        if value == 1:
            continue
        for member in graph.groups[name].members:
            size = graph.parameter(member.param).shape[member.dim]
            ones = torch.ones(size, dtype=torch.float64)
            found.setdefault((member.param, member.dim), ones)[member.index] = value
    return found
