"""Cost: multiply-adds and parameters as exact functions of the masks.

One fused multiply-add counts as one MAC, which is half of what torch's FlopCounterMode counts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

from easypruner.graph.coupling import Axis, Coupling
from easypruner.graph.groups import Ids, Partition


@dataclass(frozen=True)
class Cost:
    """What a network costs.

    Attributes:
        macs: multiply-adds of one forward pass on the example inputs, the whole batch.
        params: parameters; tied ones count once.
    """

    macs: int
    params: int


@dataclass(frozen=True)
class AxisSizes:
    """Kept sizes of axes: ``base + share @ units``, with ``units`` the kept units of each group."""

    base: npt.NDArray[np.float64]
    share: npt.NDArray[np.float64]

    def __call__(self, units: Sequence[int]) -> Ids:
        """Return the sizes where each group keeps the given number of units."""
        sizes = np.rint(self.base + self.share @ np.asarray(units, dtype=np.float64))
        return sizes.astype(np.int64)


@dataclass(frozen=True)
class CostModel:
    """The cost as sums of products of kept sizes.

    A product is ``factor[t]`` times the sizes of ``axes[t]``. The first ``macs_terms`` products
    are multiply-adds, the rest parameters.
    """

    sizes: AxisSizes
    factor: Ids
    axes: Ids
    macs_terms: int

    def __call__(self, units: Sequence[int]) -> Cost:
        """Return the cost where each group keeps the given number of units."""
        products = self.factor * self.sizes(units)[self.axes].prod(axis=1)
        return Cost(
            macs=int(products[: self.macs_terms].sum()),
            params=int(products[self.macs_terms :].sum()),
        )


def counted_axes(coupling: Coupling) -> list[Axis]:
    """Return the axes of activations that enter a product, each once."""
    owned = {id(axis) for axis in coupling.owned_axes()}
    axes: dict[int, Axis] = {}
    for term in coupling.terms:
        for axis in term.axes:
            if not coupling.is_constant(axis) and id(axis) not in owned:
                axes[id(axis)] = axis
    return list(axes.values())


def cost_model(coupling: Coupling, parts: Partition, parameters: Mapping[str, Tensor]) -> CostModel:
    """Build the cost model of a partitioned tape.

    Args:
        coupling: the finished walk.
        parts: how its nodes fall into groups.
        parameters: the model's parameters, tied ones once.
    """
    table = AxisTable(coupling)
    products = [table.product(term.factor, term.axes) for term in coupling.terms]
    for name, tensor in parameters.items():
        axes = coupling.axes_of(name)
        if axes is None:
            products.append((tensor.numel(), ()))
        else:
            products.append(table.product(1, axes))
    width = max((len(numbers) for _, numbers in products), default=0) or 1
    index = np.zeros((len(products), width), dtype=np.int64)
    for row, (_, numbers) in enumerate(products):
        index[row, : len(numbers)] = numbers
    return CostModel(
        sizes=table.sizes(parts),
        factor=np.array([factor for factor, _ in products], dtype=np.int64),
        axes=index,
        macs_terms=len(coupling.terms),
    )


class AxisTable:
    """Numbers the axes that products consist of; number 0 is an axis of size one."""

    def __init__(self, coupling: Coupling) -> None:
        self._coupling = coupling
        self._number: dict[int, int] = {}
        self._axes: list[Axis] = [coupling.constant(1)]

    def product(self, factor: int, axes: Iterable[Axis]) -> tuple[int, tuple[int, ...]]:
        """Return a product with its constant sizes folded into the factor."""
        constant, numbers = [factor], []
        for axis in axes:
            if self._coupling.is_constant(axis):
                constant.append(axis.size)
                continue
            numbers.append(self.number(axis))
        return math.prod(constant), tuple(numbers)

    def number(self, axis: Axis) -> int:
        """Return the number of an axis; it is given one when first asked for."""
        number = self._number.get(id(axis))
        if number is None:
            number = self._number[id(axis)] = len(self._axes)
            self._axes.append(axis)
        return number

    def sizes(self, parts: Partition) -> AxisSizes:
        """Return the kept sizes of all numbered axes as functions of the kept units."""
        count, groups = len(self._axes), len(parts.groups)
        ids = np.concatenate(self._axes)
        row = np.repeat(np.arange(count), [axis.size for axis in self._axes])
        unit = np.where(
            ids >= 0, parts.unit_of[np.maximum(ids, 0)] if parts.unit_of.size else -1, -1
        )
        stays = unit < 0
        base = np.bincount(row[stays], minlength=count).astype(np.float64)
        cell = row[~stays] * groups + parts.group_of[unit[~stays]]
        share = np.bincount(cell, minlength=count * groups).reshape(count, groups)
        sizes = np.array([group.size for group in parts.groups.values()], dtype=np.float64)
        return AxisSizes(base, share / sizes if groups else share.astype(np.float64))
