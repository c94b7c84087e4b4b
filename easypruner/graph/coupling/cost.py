"""Cost: multiply-adds, parameters and activations as exact functions of the masks.

One fused multiply-add counts as one MAC, which is half of what torch's FlopCounterMode counts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from easypruner.errors import MaskError
from easypruner.graph.coupling.coupling import Axis, Coupling
from easypruner.graph.coupling.groups import ChannelGroup, Partition
from easypruner.graph.coupling.layout import Ids

_QUANTITIES = ('macs', 'params', 'activations')


@dataclass(frozen=True)
class Cost:
    """What a network, or a part of one, costs.

    Attributes:
        macs: multiply-adds of one forward pass on the example inputs, the whole batch.
        params: parameters; tied ones count once.
        activations: elements of all the tensors that operations of that pass make, in evaluation
            mode and for the whole batch. What a view or an in-place operation returns is no new
            memory and does not count; neither do the inputs. Times the bytes of an element, this
            is the memory traffic of writing them, not the peak of what is alive at one time.
    """

    macs: int
    params: int
    activations: int = 0


@dataclass(frozen=True)
class AxisSizes:
    """Kept sizes of axes: ``base + share @ units``, with ``units`` the kept units of each group."""

    base: npt.NDArray[np.float64]
    share: npt.NDArray[np.float64]

    def __call__(self, units: Sequence[int]) -> Ids:
        """Return the sizes where each group keeps the given number of units."""
        sizes = np.rint(self.base + self.share @ np.asarray(units, dtype=np.float64))
        return sizes.astype(np.int64)

    def distinct(self) -> tuple[AxisSizes, Ids]:
        """Return the sizes without repetitions, and for each axis its place among those."""
        places: dict[bytes, int] = {}
        rows = np.column_stack([self.base, self.share])
        place = [places.setdefault(row.tobytes(), len(places)) for row in rows]
        _, first = np.unique(place, return_index=True)
        return AxisSizes(self.base[first], self.share[first]), np.array(place, dtype=np.int64)


@dataclass(frozen=True)
class Shares:
    """What each product adds to each layer's costs: ``factor`` times the product's value.

    Attributes:
        layer: number of the layer.
        quantity: place in ``Cost``: 0 for multiply-adds, 1 for parameters, 2 for activations.
        product: number of the product.
        factor: how often it counts.
    """

    layer: Ids
    quantity: Ids
    product: Ids
    factor: Ids


@dataclass(frozen=True)
class CostModel:
    """The cost as sums of products of kept sizes.

    Attributes:
        sizes: of the axes that the products consist of.
        axes: numbers of the axes of each product, shape ``(products, width)``.
        totals: how often each product counts, shape ``(3, products)``.
        layers: dotted paths of the modules.
        shares: how the layers share the cost.
    """

    sizes: AxisSizes
    axes: Ids
    totals: Ids
    layers: tuple[str, ...]
    shares: Shares

    def __call__(self, units: Sequence[int]) -> Cost:
        """Return the cost where each group keeps the given number of units."""
        return Cost(*(self.totals @ self._products(units)).tolist())

    def by_layer(self, units: Sequence[int]) -> dict[str, Cost]:
        """Return the cost of each layer where each group keeps the given number of units."""
        result = np.zeros((len(self.layers), len(_QUANTITIES)), dtype=np.int64)
        shares = self.shares
        values = shares.factor * self._products(units)[shares.product]
        np.add.at(result, (shares.layer, shares.quantity), values)
        return {layer: Cost(*row) for layer, row in zip(self.layers, result.tolist(), strict=True)}

    def by_group(self, units: Sequence[int]) -> list[Cost]:
        """Return for each group what goes if it loses all the units that it keeps."""
        before = self.totals @ self._products(units)
        costs = []
        for number in range(len(units)):
            without = [*units[:number], 0, *units[number + 1 :]]
            costs.append(Cost(*(before - self.totals @ self._products(without)).tolist()))
        return costs

    def _products(self, units: Sequence[int]) -> Ids:
        products: Ids = self.sizes(units)[self.axes].prod(axis=1)
        return products


def kept_units(masks: Mapping[str, Tensor], groups: Mapping[str, ChannelGroup]) -> list[int]:
    """Return how many units of each group stay.

    All masks are counted in one pass: with a call for each, counting would take longer than the
    cost itself.

    Args:
        masks: group -> bool tensor ``(units,)``, True = keep. Groups not named stay whole.
        groups: of the graph.

    Raises:
        MaskError: a mask that is not of its group's shape.
    """
    units = {name: group.size for name, group in groups.items()}
    if not masks:
        return list(units.values())
    for name, mask in masks.items():
        if mask.dtype is not torch.bool or mask.shape != (units[name],):
            raise MaskError(
                f'the mask of group {name!r} is {mask.dtype} of shape {tuple(mask.shape)}; '
                f'expected torch.bool of shape ({units[name]},), True = keep'
            )
    flat = torch.cat(list(masks.values())).cpu().numpy()
    starts = np.cumsum([0, *(units[name] for name in masks)])[:-1]
    counts = np.add.reduceat(flat.view(np.uint8), starts, dtype=np.int64)
    units.update(zip(masks, counts.tolist(), strict=True))
    return list(units.values())


def counted_axes(coupling: Coupling) -> list[Axis]:
    """Return the axes of activations whose sizes enter the cost, each once."""
    owned = {id(axis) for axis in coupling.owned_axes()}
    axes: dict[int, Axis] = {}
    for term in chain(coupling.terms, coupling.activations):
        for axis in term.axes:
            if not coupling.is_constant(axis) and id(axis) not in owned:
                axes[id(axis)] = axis
    return list(axes.values())


@dataclass(frozen=True)
class _Product:
    """``factor`` times the sizes of axes, which a layer adds to a quantity of its cost."""

    layer: str
    quantity: int
    factor: int
    axes: tuple[int, ...]


def cost_model(coupling: Coupling, parts: Partition, parameters: Mapping[str, Tensor]) -> CostModel:
    """Build the cost model of a partitioned tape.

    Args:
        coupling: the finished walk.
        parts: how its nodes fall into groups.
        parameters: the model's parameters, tied ones once.
    """
    table = AxisTable(coupling)
    products = list(_products(coupling, parameters, table))
    sizes, place = table.sizes(parts).distinct()
    width = max((len(product.axes) for product in products), default=0) or 1
    axes = np.zeros((len(products), width), dtype=np.int64)
    for row, product in enumerate(products):
        axes[row, : len(product.axes)] = product.axes
    distinct, number = np.unique(np.sort(place[axes], axis=1), axis=0, return_inverse=True)
    layers = {name: n for n, name in enumerate(dict.fromkeys(p.layer for p in products))}
    shares = Shares(
        layer=np.array([layers[p.layer] for p in products], dtype=np.int64),
        quantity=np.array([p.quantity for p in products], dtype=np.int64),
        product=number.reshape(-1),
        factor=np.array([p.factor for p in products], dtype=np.int64),
    )
    totals = np.zeros((len(_QUANTITIES), len(distinct)), dtype=np.int64)
    np.add.at(totals, (shares.quantity, shares.product), shares.factor)
    return CostModel(sizes, distinct, totals, tuple(layers), shares)


def _products(
    coupling: Coupling, parameters: Mapping[str, Tensor], table: AxisTable
) -> Iterator[_Product]:
    """Yield what the cost is a sum of; layers come in the order of the forward pass."""
    for quantity, terms in ((2, coupling.activations), (0, coupling.terms)):
        for term in terms:
            factor, axes = table.product(term.factor, term.axes)
            yield _Product(term.module, quantity, factor, axes)
    for name, tensor in parameters.items():
        owned = coupling.axes_of(name)
        factor, axes = (tensor.numel(), ()) if owned is None else table.product(1, owned)
        yield _Product(name.rpartition('.')[0], 1, factor, axes)


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
        count, groups = len(self._axes), len(parts.sizes)
        ids = np.concatenate(self._axes)
        row = np.repeat(np.arange(count), [axis.size for axis in self._axes])
        unit = np.where(
            ids >= 0, parts.unit_of[np.maximum(ids, 0)] if parts.unit_of.size else -1, -1
        )
        stays = unit < 0
        base = np.bincount(row[stays], minlength=count).astype(np.float64)
        cell = row[~stays] * groups + parts.group_of[unit[~stays]]
        share = np.bincount(cell, minlength=count * groups).reshape(count, groups)
        return AxisSizes(base, share / parts.sizes if groups else share.astype(np.float64))
