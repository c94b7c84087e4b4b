"""What regularizers share: cached preparations, a base class, gradients to add to, factors."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor
from torch.optim import Optimizer

from easypruner.graph import ChannelGraph, Masks
from easypruner.strategies.regularizers.regularizer import Regularizer
from easypruner.strategies.regularizers.schedule import Progress
from easypruner.strategies.regularizers.selected import check_not_nan

_Prepared = TypeVar('_Prepared')
_Row = TypeVar('_Row', bound='PushedRow')

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


@dataclass(frozen=True)
class PushedRow(ABC):
    """Values of many parameters in one row.

    Attributes:
        names: the names of the parameters.
        tensors: the parameters.
    """

    names: list[str]
    tensors: list[Tensor]

    @abstractmethod
    def add(self, pushes: Tensor) -> None:
        """Add to the gradients of the parameters what the values of the row are pushed by."""

    @abstractmethod
    def move(self, pushes: Tensor, optimizer: Optimizer, progress: Progress) -> None:
        """Move the parameters by pushes times their step sizes, and stop at zero."""


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


class RowPenalty(Regularizer, Generic[_Row]):
    """A penalty on the values of one row, whose gradient is added with a few fused calls.

    The row is prepared once for all updates, and again after a cut or for other masks.
    """

    @cached_property
    def _prepared(self) -> PreparedOnce[_Row]:
        return PreparedOnce(self.prepare)

    @abstractmethod
    def prepare(self, graph: ChannelGraph, masks: Masks | None) -> _Row:
        """Return the row."""

    @abstractmethod
    def penalty_of(self, row: _Row) -> Tensor:
        """Return the penalty of a row as a scalar with a gradient."""

    @abstractmethod
    def pushes_of(self, row: _Row) -> Tensor:
        """Return what the row adds to gradients at a strength of 1."""

    @torch.no_grad()
    def shrink(self, graph: ChannelGraph, masks: Masks | None, progress: Progress) -> None:
        row = self._prepared(graph, masks)
        pushes = self.pushes_of(row) * self.strength_at(progress)
        row.move(pushes, progress.known_optimizer(), progress)

    def pushed_names(self, graph: ChannelGraph, masks: Masks | None) -> list[str]:
        return self._prepared(graph, masks).names

    def refresh(self) -> None:
        self._prepared = PreparedOnce(self.prepare)

    def largest_of(self, row: _Row) -> float:
        """Return the largest value that has to come to zero.

        By default it is 0, because the training decides which values come to zero.
        """
        return 0.0

    def penalty(self, graph: ChannelGraph, masks: Masks | None) -> Tensor:
        return self.penalty_of(self._prepared(graph, masks))

    @torch.no_grad()
    def add_gradient(self, graph: ChannelGraph, masks: Masks | None, progress: Progress) -> None:
        row = self._prepared(graph, masks)
        row.add(self.pushes_of(row) * in_gradient_scale(self.strength_at(progress), progress))

    def largest(self, graph: ChannelGraph, masks: Masks | None) -> float:
        row = self._prepared(graph, masks)
        check_not_nan(row.names, row.tensors, type(self).__name__)
        return self.largest_of(row)
