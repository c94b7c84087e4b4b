"""Groups: connected components of the coupled indices, sorted into units of the same layers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from easypruner.graph.coupling import Axis, Coupling

Ids = npt.NDArray[np.int64]
Signatures = npt.NDArray[np.uint64]
Role = Literal['out', 'in']

_SIGNATURE_SEED = 20220117


@dataclass(frozen=True)
class Member:
    """The part that one dimension of one parameter or buffer has in a group.

    Attributes:
        param: dotted name of the parameter or buffer.
        dim: the dimension that is cut.
        role: 'out' where it makes or carries the channels, 'in' where it reads (sums over) them.
        index: int64 tensor of shape ``(units, k)``: the indices of each unit in the dimension.
        operand: what the parameter is used as, e.g. ``'batch_norm.weight'``.
    """

    param: str
    dim: int
    role: Role
    index: Tensor
    operand: str

    @property
    def module(self) -> str:
        """Dotted path of the module that owns the parameter."""
        return self.param.rpartition('.')[0]


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
    members: tuple[Member, ...]
    mixed: tuple[str, ...] = ()

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
        groups: in the order in which the forward pass meets them.
        unit_of: node id -> number of its unit over all groups, or -1 where it stays.
        group_of: number of a unit -> number of its group.
        reason_of: node id -> number of the reason it stays for, or -1 where it is free.
    """

    groups: dict[str, ChannelGroup]
    unit_of: Ids
    group_of: Ids
    reason_of: Ids


def partition(coupling: Coupling, counted: Iterable[Axis]) -> Partition:
    """Sort the node ids into units and groups.

    Args:
        coupling: the finished walk over the tape.
        counted: axes whose kept size enters a cost; every unit of a group must hold as many
            indices of each as the others.
    """
    nodes = coupling.nodes
    labels, reasons = _components(coupling)
    node, owner = _owned_nodes(coupling)
    free = reasons[labels[node]] < 0
    rows = _Rows(node[free], owner[free], labels[node[free]])
    signature = _signatures(rows, labels, list(counted), reasons.size)
    unit_of_label, group_of = _number_units(rows, signature)
    unit_of = unit_of_label[labels[:nodes]]
    members = _members(coupling, rows, unit_of, group_of)
    notes = _notes(coupling, unit_of, group_of)
    groups: dict[str, ChannelGroup] = {}
    for number, parts in enumerate(members):
        name = _group_name(parts, groups)
        mixed = tuple(notes.get(number, ()))
        groups[name] = ChannelGroup(name, len(parts[0].index), tuple(parts), mixed)
    return Partition(groups, unit_of, group_of, reasons[labels[:nodes]])


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


def _owned_nodes(coupling: Coupling) -> tuple[Ids, Ids]:
    """Return the nodes that are indices of parameters, and the number of each one's owner."""
    sizes = np.array([owner.size for owner in coupling.owners], dtype=np.int64)
    starts = np.array([owner.start for owner in coupling.owners], dtype=np.int64)
    owner = np.repeat(np.arange(sizes.size), sizes)
    before = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)
    node = np.arange(owner.size) + np.repeat(starts - before[: sizes.size], sizes)
    return node, owner


@dataclass(frozen=True)
class _Rows:
    """The free nodes that are indices of parameters: node id, owner and component of each."""

    node: Ids
    owner: Ids
    label: Ids


def _signatures(rows: _Rows, labels: Ids, counted: list[Axis], components: int) -> Signatures:
    """Return a number per component, equal where the same dimensions have equal shares."""
    owners = int(rows.owner.max(initial=-1)) + 1
    width = owners + len(counted)
    if width == 0:
        return np.zeros(components, dtype=np.uint64)
    keys = [rows.label * width + rows.owner]
    for extra, axis in enumerate(counted, start=owners):
        keys.append(labels[axis[axis >= 0]] * width + extra)
    key, count = np.unique(np.concatenate(keys), return_counts=True)
    where, which = np.divmod(key, width)
    weights = np.random.default_rng(_SIGNATURE_SEED).integers(0, 2**63, size=width, dtype=np.uint64)
    # Multiplying by an odd number and adding wraps around: a hash of the multiset of pairs.
    terms = (weights[which] + count.astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
    terms ^= terms >> np.uint64(29)
    signature = np.zeros(components, dtype=np.uint64)
    np.add.at(signature, where, terms * np.uint64(0xBF58476D1CE4E5B9))
    return signature


def _number_units(rows: _Rows, signature: Signatures) -> tuple[Ids, Ids]:
    """Number units group by group; return the unit of each component and the group of each unit.

    Groups come in the order of their first node, units in the order of theirs.
    """
    unit_of_label = np.full(signature.size, -1, dtype=np.int64)
    label, first = np.unique(rows.label, return_index=True)
    order = np.argsort(rows.node[first], kind='stable')
    label = label[order]
    _, where, inverse = np.unique(signature[label], return_index=True, return_inverse=True)
    rank = np.empty(where.size, dtype=np.int64)
    rank[np.argsort(where, kind='stable')] = np.arange(where.size)
    group = rank[inverse.reshape(-1)]
    by_group = np.argsort(group, kind='stable')
    unit_of_label[label[by_group]] = np.arange(label.size)
    return unit_of_label, group[by_group]


def _members(coupling: Coupling, rows: _Rows, unit_of: Ids, group_of: Ids) -> list[list[Member]]:
    """Return the members of each group."""
    unit = unit_of[rows.node]
    group = group_of[unit]
    order = np.lexsort((rows.node, unit, rows.owner, group))
    node, owner, group = rows.node[order], rows.owner[order], group[order]
    sizes = np.bincount(group_of) if group_of.size else np.empty(0, dtype=np.int64)
    reads = np.zeros(coupling.nodes, dtype=bool)
    ids = coupling.reads()
    reads[ids[ids >= 0]] = True
    turns = np.diff(group * (len(coupling.owners) + 1) + owner, prepend=-1, append=-1)
    edges = np.flatnonzero(turns) if node.size else np.empty(0, dtype=np.int64)
    members: list[list[Member]] = [[] for _ in sizes]
    for start, stop in pairwise(edges.tolist()):
        number, part = int(group[start]), coupling.owners[owner[start]]
        index = (node[start:stop] - part.start).reshape(int(sizes[number]), -1)
        members[number].append(
            Member(
                param=part.param,
                dim=part.dim,
                role='in' if reads[node[start]] else 'out',
                index=torch.from_numpy(index),
                operand=coupling.operands.get(part.param, 'parameter'),
            )
        )
    return members


def _notes(coupling: Coupling, unit_of: Ids, group_of: Ids) -> dict[int, dict[str, None]]:
    """Return the operations that mix the channels of each group, in order."""
    notes: dict[int, dict[str, None]] = {}
    for axis, operation in coupling.mixed:
        units = unit_of[axis[axis >= 0]]
        for number in np.unique(group_of[units[units >= 0]]).tolist():
            notes.setdefault(number, {})[operation] = None
    return notes


def _group_name(members: list[Member], taken: Mapping[str, object]) -> str:
    lead = next((m for m in members if m.role == 'out'), members[0])
    name = unique = lead.param.removesuffix('.weight')
    number = 2
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
            numbers = reason_of[owner.start : owner.start + owner.size]
            for number, count in zip(
                *np.unique(numbers[numbers >= 0], return_counts=True), strict=True
            ):
                result.append(Frozen(param, dim, int(count), coupling.reasons[number]))
    return tuple(result)
