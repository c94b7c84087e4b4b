"""Cost: multiply-adds, parameters and activations as exact functions of the masks.

One fused multiply-add is one MAC. Torch's FlopCounterMode counts it as two operations.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from easypruner.errors import MaskError
from easypruner.graph.coupling.axes import Axis, Ids
from easypruner.graph.coupling.coupling import Coupling
from easypruner.graph.coupling.groups import ChannelGroup, Partition

_QUANTITIES = ('macs', 'params', 'activations')


@dataclass(frozen=True)
class Cost:
    """The cost of a network or of a part of one.

    Attributes:
        macs: the multiply-adds of one forward pass on the example inputs, the whole batch.
        params: the parameters. A tied one counts once.
        activations: the elements of all tensors that the operations of that pass make, in
            evaluation mode and for the whole batch. Views, results of in-place operations and the
            inputs do not count, because they are not new memory. Times the bytes of an element,
            this is the memory traffic of writing them, not the peak of memory.
    """

    macs: int
    params: int
    activations: int = 0


@dataclass(frozen=True)
class AxisSizes:
    """The kept sizes of axes: each is a base plus, for groups, a share of their kept units.

    Most axes have channels of few groups. So there is an entry for each group of each axis.

    Attributes:
        base: the number of indices of each axis that stay in any case.
        axis: the number of the axis of each entry, ascending.
        group: the number of the group of each entry.
        share: how many indices of the axis each unit of the group has.
    """

    base: npt.NDArray[np.float64]
    axis: Ids
    group: Ids
    share: npt.NDArray[np.float64]

    def __call__(self, units: Sequence[int]) -> Ids:
        """Return the sizes if each group keeps the given number of units."""
        kept = self.share * np.asarray(units, dtype=np.float64)[self.group]
        return np.rint(self.base + np.bincount(self.axis, kept, self.base.size)).astype(np.int64)

    def distinct(self) -> tuple[AxisSizes, Ids]:
        """Return the sizes without repetitions, and for each axis the number of its size there."""
        numbers: dict[tuple[float, bytes, bytes], int] = {}
        bounds = np.searchsorted(self.axis, np.arange(self.base.size + 1)).tolist()
        number = np.array(
            [
                numbers.setdefault(
                    (base, self.group[i:j].tobytes(), self.share[i:j].tobytes()), len(numbers)
                )
                for base, (i, j) in zip(self.base.tolist(), pairwise(bounds), strict=True)
            ],
            dtype=np.int64,
        )
        _, first = np.unique(number, return_index=True)
        is_first = np.zeros(number.size, dtype=bool)
        is_first[first] = True
        used = is_first[self.axis]
        axis = number[self.axis[used]]
        return AxisSizes(self.base[first], axis, self.group[used], self.share[used]), number


@dataclass(frozen=True)
class CostModel:
    """The cost of a network as sums of products of kept sizes.

    Attributes:
        sizes: the kept sizes of the axes.
        axes: the numbers of the axes of each product, shape ``(products, width)``.
        totals: how often each product counts, shape ``(3, products)``.
        layers: the dotted paths of the modules.
        shares: what the products add to the costs of layers: the number of the layer, the position
            in ``Cost``, the number of the product and how often it counts, as four rows.
    """

    sizes: AxisSizes
    axes: Ids
    totals: Ids
    layers: tuple[str, ...]
    shares: Ids

    def __call__(self, units: Sequence[int]) -> Cost:
        """Return the cost if each group keeps the given number of units."""
        return Cost(*(self.totals @ self._products(units)).tolist())

    def by_layer(self, units: Sequence[int]) -> dict[str, Cost]:
        """Return the cost of each layer if each group keeps the given number of units."""
        result = np.zeros((len(self.layers), len(_QUANTITIES)), dtype=np.int64)
        layer, quantity, product, factor = self.shares
        np.add.at(result, (layer, quantity), factor * self._products(units)[product])
        return {layer: Cost(*row) for layer, row in zip(self.layers, result.tolist(), strict=True)}

    def by_group(self, units: Sequence[int]) -> list[Cost]:
        """Return for each group the cost that goes if it loses all the units that it keeps."""
        before = self.totals @ self._products(units)
        costs = []
        for number in range(len(units)):
            without = [*units[:number], 0, *units[number + 1 :]]
            costs.append(Cost(*(before - self.totals @ self._products(without)).tolist()))
        return costs

    def _products(self, units: Sequence[int]) -> Ids:
        products: Ids = self.sizes(units)[self.axes].prod(axis=1)
        return products


def count_kept(masks: Mapping[str, Tensor], groups: Mapping[str, ChannelGroup]) -> list[int]:
    """Return how many units of each group stay.

    All masks are counted together. To count them one by one takes longer than the cost itself.

    Args:
        masks: group -> bool tensor ``(units,)``, True = keep. Groups without a mask stay whole.
        groups: the groups of the graph.

    Raises:
        MaskError: a mask has another shape than its group.
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


def find_counted_axes(coupling: Coupling) -> list[Axis]:
    """Return the distinct axes of activations whose sizes enter the cost."""
    tally = coupling.tally
    counted = (axis for term in chain(tally.macs, tally.activations) for axis in term.axes)
    owned = set(coupling.axes.of_parameters())
    return list(
        dict.fromkeys(axis for axis in counted if not axis.is_constant and axis not in owned)
    )


@dataclass(frozen=True)
class _Product:
    """A product that a layer adds to a quantity of its cost: ``factor`` times sizes of axes."""

    layer: str
    quantity: int
    factor: int
    axes: tuple[int, ...]


def build_cost_model(
    coupling: Coupling, parts: Partition, parameters: Mapping[str, Tensor]
) -> CostModel:
    """Build the cost model of a network.

    Args:
        coupling: has the costs of the operations.
        parts: how the nodes fall into groups.
        parameters: name -> parameter. A tied one has one name.
    """
    table = AxisTable()
    products = list(_products(coupling, parameters, table))
    sizes, number_of = table.find_sizes(parts).distinct()
    width = max((len(product.axes) for product in products), default=0) or 1
    axes = np.zeros((len(products), width), dtype=np.int64)
    for row, product in enumerate(products):
        axes[row, : len(product.axes)] = product.axes
    distinct, number = np.unique(np.sort(number_of[axes], axis=1), axis=0, return_inverse=True)
    layers = {name: n for n, name in enumerate(dict.fromkeys(p.layer for p in products))}
    numbered = zip(products, number.flat, strict=True)
    rows = [(layers[p.layer], p.quantity, n, p.factor) for p, n in numbered]
    shares = np.array(rows, dtype=np.int64).reshape(-1, 4).T
    totals = np.zeros((len(_QUANTITIES), len(distinct)), dtype=np.int64)
    np.add.at(totals, tuple(shares[1:3]), shares[3])
    return CostModel(sizes, distinct, totals, tuple(layers), shares)


def _products(
    coupling: Coupling, parameters: Mapping[str, Tensor], table: AxisTable
) -> Iterator[_Product]:
    """Yield the products that sum to the cost. Layers come in the order of the forward pass."""
    for quantity, terms in ((2, coupling.tally.activations), (0, coupling.tally.macs)):
        for term in terms:
            factor, axes = table.make_product(term.factor, term.axes)
            yield _Product(term.module, quantity, factor, axes)
    for name, tensor in parameters.items():
        owned = coupling.axes.of_parameter(name)
        factor, axes = (tensor.numel(), ()) if owned is None else table.make_product(1, owned)
        yield _Product(name.rpartition('.')[0], 1, factor, axes)


class AxisTable:
    """The numbers of axes. Number 0 is an axis of a single index."""

    def __init__(self) -> None:
        self._numbers = {Axis(np.array([-1])): 0}

    def make_product(self, factor: int, axes: Iterable[Axis]) -> tuple[int, tuple[int, ...]]:
        """Return the factor of a product and the numbers of its axes.

        The sizes of constant axes become part of the factor.
        """
        constant, numbers = [factor], []
        for axis in axes:
            if axis.is_constant:
                constant.append(axis.size)
            else:
                numbers.append(self.number_of(axis))
        return math.prod(constant), tuple(numbers)

    def number_of(self, axis: Axis) -> int:
        """Return the number of an axis. An axis without one gets the next."""
        return self._numbers.setdefault(axis, len(self._numbers))

    def find_sizes(self, parts: Partition) -> AxisSizes:
        """Return the kept sizes of all numbered axes as functions of the kept units."""
        count, groups = len(self._numbers), len(parts.sizes)
        ids = np.concatenate([axis.ids for axis in self._numbers])
        row = np.repeat(np.arange(count), [axis.size for axis in self._numbers])
        # An id of a reason, which is below zero, finds the entry behind all nodes.
        unit = np.append(parts.unit_of, -1)[np.maximum(ids, -1)]
        stays = unit < 0
        base = np.bincount(row[stays], minlength=count).astype(np.float64)
        of_axis, of_group = row[~stays], parts.group_of[unit[~stays]]
        entries, indices = np.unique(of_axis * groups + of_group, return_counts=True)
        axis, group = np.divmod(entries, max(groups, 1))
        return AxisSizes(base, axis, group, indices / parts.sizes[group])
