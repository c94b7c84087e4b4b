"""Groups: coupled indices form units, and units of the same dimensions form a group."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, count

import numpy as np
import numpy.typing as npt
from torch import Tensor

from easypruner.graph.coupling.axes import Axis, Ids, Owner
from easypruner.graph.coupling.components import find_components
from easypruner.graph.coupling.coupling import Coupling
from easypruner.graph.coupling.layout import Bools, Dimension, Member, UnitLayout

Signatures = npt.NDArray[np.uint64]

_SIGNATURE_SEED = 20220117
_EMPTY: Ids = np.empty(0, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class ChannelGroup:
    """Units of the same layers. A unit is the channels that live or die together.

    Attributes:
        name: the name, which is unique in a graph.
        size: the number of units.
        number: the number of the group in the layout.
        layout: where the units of all groups are in the parameters.
        mixed: the operations that mix the group's channels, such as a layer norm. Then the removal
            of a channel changes the values of the others.
    """

    name: str
    size: int
    number: int
    layout: UnitLayout
    mixed: tuple[str, ...] = ()

    @cached_property
    def members(self) -> tuple[Member, ...]:
        """The dimensions of parameters in which the units have indices."""
        return self.layout.make_members(self.number)

    @property
    def makers(self) -> tuple[Member, ...]:
        """The weights that make the group's channels."""
        return self.layout.make_members(self.number, makers=True)

    @property
    def producers(self) -> tuple[Member, ...]:
        """The weights that make the group's channels; if there is none, all members."""
        return self.makers or self.members

    def __repr__(self) -> str:
        return f'ChannelGroup({self.name!r}, {self.size} units, {len(self.members)} members)'


@dataclass(frozen=True)
class Partition:
    """How the node ids fall into groups.

    Attributes:
        sizes: the number of units of each group. Groups come in the order of the forward pass.
        unit_of: node id -> number of its unit among those of all groups, or -1 if it stays.
        group_of: number of a unit -> number of its group.
        reason_of: node id -> number of the reason for which it stays, or -1 if it may go.
    """

    sizes: Ids
    unit_of: Ids
    group_of: Ids
    reason_of: Ids

    def groups_of(self, axis: Axis) -> list[int]:
        """Return the numbers of the groups that have channels in an axis, ascending."""
        found = self._groups_of_axes.get(axis)
        if found is None:
            units = self.unit_of[axis.nodes]
            # An axis has many more channels than groups, so groups are marked and not sorted.
            marks = np.zeros(self.sizes.size, dtype=bool)
            marks[self.group_of[units[units >= 0]]] = True
            found = self._groups_of_axes[axis] = np.flatnonzero(marks).tolist()
        return found

    @cached_property
    def _groups_of_axes(self) -> dict[Axis, list[int]]:
        """The groups of each axis that was asked for: repairs ask for the same ones often."""
        return {}

    def reasons_at(self, axis: Axis) -> Ids:
        """Return the number of the reason for which each index of an axis stays, or -1."""
        stays = axis.ids < 0
        numbers = -axis.ids - 1
        numbers[~stays] = self.reason_of[axis.ids[~stays]]
        return numbers


@dataclass(frozen=True)
class OwnedAxes:
    """The distinct axes of parameters and buffers. Most belong to several dimensions.

    Each node of each axis is one row of ``node``, ``axis`` and ``index``.

    Attributes:
        axes: the axes.
        axis_of: number of an owner -> number of its axis.
        sizes: the sizes of the axes.
        node: the node id of each row.
        axis: the number of the axis of each row.
        index: the position in the axis of each row.
    """

    axes: tuple[Axis, ...]
    axis_of: Ids
    sizes: Ids
    node: Ids
    axis: Ids
    index: Ids

    @classmethod
    def of(cls, coupling: Coupling) -> OwnedAxes:
        """Return the axes in the order in which operations read them."""
        number: dict[Axis, int] = {}
        axis_of = [
            number.setdefault(owner.axis, len(number)) for owner in coupling.axes.owners.values()
        ]
        sizes = np.array([axis.size for axis in number], dtype=np.int64)
        node = np.concatenate([_EMPTY, *(axis.ids for axis in number)])
        axis = np.repeat(np.arange(sizes.size), sizes)
        index = np.arange(node.size) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        free = node >= 0
        rows = node[free], axis[free], index[free]
        return cls(tuple(number), np.array(axis_of, dtype=np.int64), sizes, *rows)

    def count(self, stays: Bools) -> dict[Axis, int]:
        """Return axis -> how many of its indices stay.

        Args:
            stays: id -> whether its index stays.
        """
        gone = np.bincount(self.axis[~stays[self.node]], minlength=self.sizes.size)
        return dict(zip(self.axes, (self.sizes - gone).tolist(), strict=True))


def partition(
    coupling: Coupling, owned: OwnedAxes, counted: Iterable[Axis], lifted: Sequence[int] = ()
) -> Partition:
    """Sort the nodes into units and groups.

    Args:
        coupling: has the edges between the nodes.
        owned: the axes of parameters.
        counted: the axes whose kept sizes enter the cost. All units of a group must have the same
            number of indices in each.
        lifted: the ids of the reasons for which nothing has to stay.
    """
    labels, reasons = _components(coupling, lifted)
    label = labels[owned.node]
    free = reasons[label] < 0
    label = label[free]
    signature = _signatures(owned, owned.axis[free], label, labels, list(counted), reasons.size)
    unit_of_label, group_of = _number_units(label, signature)
    return Partition(
        sizes=np.bincount(group_of),
        unit_of=unit_of_label[labels],
        group_of=group_of,
        reason_of=reasons[labels],
    )


def make_groups(
    coupling: Coupling, owned: OwnedAxes, parts: Partition, tensors: Mapping[str, Tensor]
) -> tuple[dict[str, ChannelGroup], UnitLayout]:
    """Return name -> group, and the layout of the units of all groups in the parameters."""
    layout = _make_layout(coupling, owned, parts, tensors)
    mixing = _mixing_operations(coupling, parts)
    groups: dict[str, ChannelGroup] = {}
    for number, size in enumerate(parts.sizes.tolist()):
        name = _unused_name(layout.find_lead(number).removesuffix('.weight'), groups)
        mixed = tuple(mixing.get(number, ()))
        groups[name] = ChannelGroup(name, size, number, layout, mixed)
    return groups, layout


def _components(coupling: Coupling, lifted: Sequence[int]) -> tuple[Ids, Ids]:
    """Return the component of each node, and the reason of each component or -1.

    A reason is no node: components that stay for the same one may stay for others as well, which
    are not those of each other.
    """
    nodes, none = coupling.axes.nodes, len(coupling.axes.reasons.texts)
    a, b = coupling.edges.arrays()
    if lifted:
        counts = ~(np.isin(a, lifted) | np.isin(b, lifted))
        a, b = a[counts], b[counts]
    inner, outer = (a >= 0) & (b >= 0), (a < 0) != (b < 0)
    labels = find_components(a[inner], b[inner], nodes)
    count = int(labels.max(initial=-1)) + 1
    a, b = a[outer], b[outer]
    # If there are several reasons, the first one counts.
    reason_of = np.full(count, none, dtype=np.int64)
    np.minimum.at(reason_of, labels[np.maximum(a, b)], -np.minimum(a, b) - 1)
    reason_of[reason_of == none] = -1
    return labels, reason_of


def _signatures(
    owned: OwnedAxes, axis: Ids, label: Ids, labels: Ids, counted: list[Axis], components: int
) -> Signatures:
    """Return a signature for each component, equal for the same numbers of indices in all axes.

    Each axis has a random number. A signature is the sum of these over a component's indices.
    """
    count = owned.sizes.size + len(counted)
    weights = np.random.default_rng(_SIGNATURE_SEED).integers(0, 2**63, size=count, dtype=np.uint64)
    signature = np.zeros(components, dtype=np.uint64)
    np.add.at(signature, label, weights[axis])
    if counted:
        ids = np.concatenate([axis.ids for axis in counted])
        weight = np.repeat(weights[owned.sizes.size :], [axis.size for axis in counted])
        np.add.at(signature, labels[ids[ids >= 0]], weight[ids >= 0])
    return signature


def _number_units(row_label: Ids, signature: Signatures) -> tuple[Ids, Ids]:
    """Number units group by group; return the unit of each component and the group of each unit.

    Groups, and units within a group, come in the order of their first nodes.
    """
    unit_of_label = np.full(signature.size, -1, dtype=np.int64)
    # Rows are written backwards, so that the first row of each component remains.
    first = np.full(signature.size, -1, dtype=np.int64)
    first[row_label[::-1]] = np.arange(row_label.size)[::-1]
    label = row_label[np.sort(first[first >= 0])]
    _, where, inverse = np.unique(signature[label], return_index=True, return_inverse=True)
    rank = np.empty(where.size, dtype=np.int64)
    rank[np.argsort(where, kind='stable')] = np.arange(where.size)
    group = rank[inverse.reshape(-1)]
    by_group = np.argsort(group, kind='stable')
    unit_of_label[label[by_group]] = np.arange(label.size)
    return unit_of_label, group[by_group]


def _make_layout(
    coupling: Coupling, owned: OwnedAxes, parts: Partition, tensors: Mapping[str, Tensor]
) -> UnitLayout:
    """Return the layout of the units, with rows sorted by group, axis, unit and index."""
    unit = parts.unit_of[owned.node]
    free = unit >= 0
    node, axis, index, unit = owned.node[free], owned.axis[free], owned.index[free], unit[free]
    group = parts.group_of[unit]
    # The rows come sorted by index; sorting is stable, and fast on long ascending runs.
    key = (group * owned.sizes.size + axis) * max(parts.group_of.size, 1) + unit
    order = np.argsort(key, kind='stable')
    owners = zip(coupling.axes.owners.values(), owned.axis_of.tolist(), strict=True)
    return UnitLayout(
        dimensions=tuple(
            Dimension(
                owner.param,
                owner.dim,
                tensors[owner.param].dim(),
                coupling.tally.operands.get(owner.param, 'parameter'),
                number,
                owner.reads,
            )
            for owner, number in owners
        ),
        sizes=owned.sizes,
        axis=axis[order],
        index=index[order],
        unit=unit[order],
        reads=_reading_nodes(coupling)[node[order]],
        starts=np.searchsorted(group[order], np.arange(len(parts.sizes) + 1)),
        first_unit=np.concatenate([[0], np.cumsum(parts.sizes)]).astype(np.int64),
    )


def _reading_nodes(coupling: Coupling) -> Bools:
    """Return for each node whether its parameter reads channels there."""
    reads = np.zeros(coupling.axes.nodes, dtype=bool)
    reads[np.concatenate([_EMPTY, *(axis.nodes for axis in coupling.readers)])] = True
    alike = coupling.edges.arrays_of(coupling.alike)
    if alike[0].size:
        labels = find_components(*alike, reads.size)
        reads = np.isin(labels, labels[reads])
    return reads


def find_readers(coupling: Coupling) -> set[Owner]:
    """Return the dimensions of parameters that read channels."""
    reads = _reading_nodes(coupling)
    return {
        owner
        for owner in coupling.axes.owners.values()
        if (reads[owner.axis.nodes].any() if owner.reads is None else owner.reads)
    }


def _mixing_operations(coupling: Coupling, parts: Partition) -> dict[int, dict[str, None]]:
    """Return number of a group -> the operations that mix its channels, in order."""
    found: dict[int, dict[str, None]] = {}
    for axis, operation in coupling.mixed:
        for number in parts.groups_of(axis):
            found.setdefault(number, {})[str(operation)] = None
    return found


def _unused_name(name: str, taken: Mapping[str, object]) -> str:
    names = chain([name], (f'{name}#{number}' for number in count(2)))
    return next(unused for unused in names if unused not in taken)
