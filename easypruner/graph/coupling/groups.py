"""Groups: connected components of the coupled indices, sorted into units of the same layers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from easypruner.graph.coupling.coupling import Axis, Coupling, Owner
from easypruner.graph.coupling.layout import Dimension, Ids, Member, Members, Places

Signatures = npt.NDArray[np.uint64]

_SIGNATURE_SEED = 20220117


@dataclass(frozen=True)
class ChannelGroup:
    """Units of the same layers. A unit is the channels that live or die together.

    Attributes:
        name: unique in its graph.
        size: the number of units.
        members: every (parameter, dimension) that a unit has indices in.
        mixed: operations that mix the group's channels with each other, such as a layer norm: a
            removed channel then changes what the others hold.
    """

    name: str
    size: int
    members: Members
    mixed: tuple[str, ...] = ()

    @property
    def producers(self) -> tuple[Member, ...]:
        """The weights that make the group's channels; failing these, all its members."""
        return self.members.makers or tuple(self.members)

    def __repr__(self) -> str:
        return f'ChannelGroup({self.name!r}, {self.size} units, {len(self.members)} members)'


@dataclass(frozen=True)
class Frozen:
    """A dimension, or some channels of one, that cannot be pruned.

    Attributes:
        param: dotted name of the parameter.
        dim: the dimension.
        channels: how many of its indices stay for this reason.
        reason: why, with the operation and module that hold it.
    """

    param: str
    dim: int
    channels: int
    reason: str


@dataclass(frozen=True)
class Partition:
    """How the node ids fall into groups.

    Attributes:
        sizes: the units of each group, in the order in which the forward pass meets them.
        unit_of: node id -> number of its unit over all groups, or -1 where it stays.
        group_of: number of a unit -> number of its group.
        reason_of: node id -> number of the reason it stays for, or -1 where it is free.
    """

    sizes: Ids
    unit_of: Ids
    group_of: Ids
    reason_of: Ids


@dataclass(frozen=True)
class OwnedAxes:
    """The distinct axes of parameters and buffers; most stand for several of their dimensions.

    Attributes:
        axis_of: of each of the coupling's owners, the number of its axis.
        sizes: of the axes.
        node: one row per index that is not known to stay: its node id,
        axis: the number of its axis,
        index: and its index in that.
    """

    axis_of: Ids
    sizes: Ids
    node: Ids
    axis: Ids
    index: Ids

    @classmethod
    def of(cls, coupling: Coupling) -> OwnedAxes:
        """Gather the axes in the order in which they were met."""
        number: dict[int, int] = {}
        axes: list[Axis] = []
        for owner in coupling.owners:
            if number.setdefault(id(owner.ids), len(axes)) == len(axes):
                axes.append(owner.ids)
        sizes = np.array([axis.size for axis in axes], dtype=np.int64)
        node = np.concatenate(axes) if axes else np.empty(0, dtype=np.int64)
        axis = np.repeat(np.arange(sizes.size), sizes)
        index = np.arange(node.size) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        free = node >= 0
        axis_of = np.array([number[id(owner.ids)] for owner in coupling.owners], dtype=np.int64)
        return cls(axis_of, sizes, node[free], axis[free], index[free])


def partition(coupling: Coupling, owned: OwnedAxes, counted: Iterable[Axis]) -> Partition:
    """Sort the node ids into units and groups.

    Args:
        coupling: the finished walk over the tape.
        owned: the axes of its parameters.
        counted: axes whose kept size enters a cost; every unit of a group must hold as many
            indices of each as the others.
    """
    labels, reasons = _components(coupling)
    label = labels[owned.node]
    free = reasons[label] < 0
    label = label[free]
    signature = _signatures(owned, owned.axis[free], label, labels, list(counted), reasons.size)
    unit_of_label, group_of = _number_units(label, signature)
    of_nodes = labels[: coupling.nodes]
    return Partition(
        sizes=np.bincount(group_of) if group_of.size else np.empty(0, dtype=np.int64),
        unit_of=unit_of_label[of_nodes],
        group_of=group_of,
        reason_of=reasons[of_nodes],
    )


def make_groups(
    coupling: Coupling, owned: OwnedAxes, parts: Partition, tensors: Mapping[str, Tensor]
) -> tuple[dict[str, ChannelGroup], Places]:
    """Return name -> group, and where their units stand in the parameters."""
    places = _places(coupling, owned, parts, tensors)
    notes = _notes(coupling, parts)
    groups: dict[str, ChannelGroup] = {}
    for number, (size, lead) in enumerate(zip(parts.sizes.tolist(), _leads(places), strict=True)):
        name = _unique(lead.removesuffix('.weight'), groups)
        mixed = tuple(notes.get(number, ()))
        groups[name] = ChannelGroup(name, size, Members(places, number), mixed)
    return groups, places


def _components(coupling: Coupling) -> tuple[Ids, Ids]:
    """Return the component of each node (reasons behind the nodes), and each one's reason or -1."""
    nodes, reasons = coupling.nodes, len(coupling.reasons)
    a, b = coupling.edges()
    a, b = (np.where(ids < 0, nodes - ids - 1, ids) for ids in (a, b))
    total = nodes + reasons
    matrix = coo_array((np.ones(a.size, dtype=np.int8), (a, b)), shape=(total, total))
    count, labels = connected_components(matrix, directed=False)
    reason_of = np.full(count, -1, dtype=np.int64)
    # The first reason that was met is the one to tell: write it last.
    backwards = np.arange(reasons)[::-1]
    reason_of[labels[nodes + backwards]] = backwards
    return labels.astype(np.int64), reason_of


def _signatures(
    owned: OwnedAxes, axis: Ids, label: Ids, labels: Ids, counted: list[Axis], components: int
) -> Signatures:
    """Return a number per component, equal where the same dimensions have equal shares.

    A random number per dimension, added up over a component's indices, tells apart how many of
    them it has in each.
    """
    count = owned.sizes.size + len(counted)
    weights = np.random.default_rng(_SIGNATURE_SEED).integers(0, 2**63, size=count, dtype=np.uint64)
    signature = np.zeros(components, dtype=np.uint64)
    np.add.at(signature, label, weights[axis])
    if counted:
        ids = np.concatenate(counted)
        weight = np.repeat(weights[owned.sizes.size :], [axis.size for axis in counted])
        np.add.at(signature, labels[ids[ids >= 0]], weight[ids >= 0])
    return signature


def _number_units(row_label: Ids, signature: Signatures) -> tuple[Ids, Ids]:
    """Number units group by group; return the unit of each component and the group of each unit.

    Groups come in the order of their first node, units in the order of theirs.
    """
    unit_of_label = np.full(signature.size, -1, dtype=np.int64)
    # Written backwards, so that the first row of each component is what remains.
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


def _places(
    coupling: Coupling, owned: OwnedAxes, parts: Partition, tensors: Mapping[str, Tensor]
) -> Places:
    """Return where the units stand: rows sorted by group, axis, unit and index."""
    unit = parts.unit_of[owned.node] if owned.node.size else owned.node
    free = unit >= 0
    node, axis, index, unit = owned.node[free], owned.axis[free], owned.index[free], unit[free]
    group = parts.group_of[unit]
    # The rows come sorted by index; sorting is stable, and fast on long ascending runs.
    key = (group * owned.sizes.size + axis) * max(parts.group_of.size, 1) + unit
    order = np.argsort(key, kind='stable')
    return Places(
        dimensions=tuple(
            Dimension(
                owner.param,
                owner.dim,
                tensors[owner.param].dim(),
                coupling.operands.get(owner.param, 'parameter'),
                number,
                owner.reads,
            )
            for owner, number in zip(coupling.owners, owned.axis_of.tolist(), strict=True)
        ),
        sizes=owned.sizes,
        axis=axis[order],
        index=index[order],
        unit=unit[order],
        reads=_read(coupling)[node[order]],
        starts=np.searchsorted(group[order], np.arange(len(parts.sizes) + 1)),
        first_unit=np.concatenate([[0], np.cumsum(parts.sizes)]).astype(np.int64),
    )


def _read(coupling: Coupling) -> npt.NDArray[np.bool_]:
    """Return for each node whether the parameter whose own index it is reads channels there."""
    read = np.zeros(coupling.nodes, dtype=bool)
    ids = coupling.reads()
    read[ids[ids >= 0]] = True
    return read


def reading(coupling: Coupling) -> list[bool]:
    """Return for each owner whether it reads channels."""
    read = _read(coupling)
    return [
        bool(read[owner.ids[owner.ids >= 0]].any()) if owner.reads is None else owner.reads
        for owner in coupling.owners
    ]


def _notes(coupling: Coupling, parts: Partition) -> dict[int, dict[str, None]]:
    """Return the operations that mix the channels of each group, in order."""
    notes: dict[int, dict[str, None]] = {}
    for axis, operation in coupling.mixed:
        units = parts.unit_of[axis[axis >= 0]]
        for number in np.unique(parts.group_of[units[units >= 0]]).tolist():
            notes.setdefault(number, {})[str(operation)] = None
    return notes


def _leads(places: Places) -> Iterator[str]:
    """Yield the parameter that each group is named after: the first that makes its channels."""
    for number in range(len(places.starts) - 1):
        yield places.lead(number)


def _unique(name: str, taken: Mapping[str, object]) -> str:
    unique, number = name, 2
    while unique in taken:
        unique = f'{name}#{number}'
        number += 1
    return unique


def frozen(coupling: Coupling, reason_of: Ids, tensors: Mapping[str, Tensor]) -> tuple[Frozen, ...]:
    """Return every dimension of ``tensors`` that stays, whole or in part, with the reason."""
    owners = {(owner.param, owner.dim): owner for owner in coupling.owners}
    result = []
    for param, tensor in tensors.items():
        for dim, size in enumerate(tensor.shape):
            owner = owners.get((param, dim))
            if owner is None:
                reason = coupling.why_fixed(param, dim, size)
                result.append(Frozen(param, dim, int(size), reason))
                continue
            numbers = reasons_at(owner, reason_of)
            for number, count in zip(
                *np.unique(numbers[numbers >= 0], return_counts=True), strict=True
            ):
                result.append(Frozen(param, dim, int(count), coupling.reasons[number]))
    return tuple(result)


def reasons_at(owner: Owner, reason_of: Ids) -> Ids:
    """Return the number of the reason that each index of a dimension stays for, or -1."""
    held = owner.ids < 0
    numbers = np.where(held, -owner.ids - 1, -1)
    numbers[~held] = reason_of[owner.ids[~held]]
    return numbers
