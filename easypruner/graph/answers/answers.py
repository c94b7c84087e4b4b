"""Answers: what a trace found, worked out when it is asked for. A trace spends no time on it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import get_args

import numpy as np
from torch import Tensor

from easypruner.errors import ConfigError, nearest
from easypruner.graph.answers.attentions import find_attentions
from easypruner.graph.answers.connections import (
    Connections,
    describe_operation,
    without_repeats,
)
from easypruner.graph.answers.explanation import Explanation, Tied
from easypruner.graph.answers.frozen import Frozen, find_frozen, kind_of_constant
from easypruner.graph.answers.shares import KindShare, find_shares
from easypruner.graph.answers.structure import KINDS, Structure, find_structure
from easypruner.graph.coupling.axes import Axis, Ids
from easypruner.graph.coupling.choice import Attention, Grouped
from easypruner.graph.coupling.coupling import Coupling
from easypruner.graph.coupling.groups import Partition, find_readers
from easypruner.graph.coupling.layout import Bools

_PRODUCTS = ('mm', 'addmm', 'bmm', 'baddbmm', 'matmul', 'mv')


@dataclass(frozen=True)
class Answers:
    """What a propagation found about a network, and which of its units later cuts removed.

    Attributes:
        coupling: which axes belong together.
        parts: how the nodes fall into groups.
        tensors: name -> parameter or buffer of the model.
        parameters: the names of the parameters. A tied one has one name.
        cuts: for each cut, which of the units that were left it kept.
    """

    coupling: Coupling
    parts: Partition
    tensors: Mapping[str, Tensor]
    parameters: Mapping[str, Tensor]
    cuts: tuple[Bools, ...] = ()

    def after(self, kept: Bools) -> Answers:
        """Return the answers after a cut of the units that were left."""
        later = replace(self, cuts=(*self.cuts, kept))
        if 'structure' in self.__dict__:
            later.__dict__['structure'] = self.structure
        return later

    @cached_property
    def structure(self) -> Structure:
        """The units that there would be if nothing had to stay, and their kinds."""
        return find_structure(self.coupling, self.tensors)

    @cached_property
    def gone(self) -> Bools:
        """Whether each unit was removed."""
        left = np.arange(self.parts.group_of.size)
        for kept in self.cuts:
            left = left[kept]
        gone = np.ones(self.parts.group_of.size, dtype=bool)
        gone[left] = False
        return gone

    @cached_property
    def frozen(self) -> tuple[Frozen, ...]:
        """What cannot be pruned, with the reasons."""
        return find_frozen(self.coupling, self.structure, self.parameters)

    @cached_property
    def shares(self) -> tuple[KindShare, ...]:
        """How much of each kind of structure can go."""
        return find_shares(self.coupling, self.parts, self.structure, self.gone, self.parameters)

    def other_options(self) -> Iterator[dict[str, str]]:
        """Yield the options, as far as they differ, with which a trace could find other groups."""
        splits, grouped = self.coupling.splits, self.coupling.grouped
        attentions = get_args(Attention) if find_attentions(splits) else ()
        groupings = get_args(Grouped) if grouped.exist else ()
        others = [{'attention': name} for name in attentions if name != splits.attention]
        yield from others
        for name in groupings:
            if name != grouped.option:
                yield from ({**other, 'grouped': name} for other in [{}, *others])

    @property
    def original_sizes(self) -> list[int]:
        """The number of units that each group had before all cuts."""
        sizes: list[int] = self.parts.sizes.tolist()
        return sizes

    def explain(self, param: str, dim: int, index: int, names: Sequence[str]) -> Explanation:
        """Return what goes with one channel, or why it stays.

        Args:
            param: the dotted name of a parameter or buffer.
            dim: the dimension.
            index: the index.
            names: the names of the groups, in order.

        Raises:
            ConfigError: there is no such channel.
        """
        size = self._check(param, dim)
        owner = self.coupling.axes.owners.get((param, dim))
        left = np.arange(size) if owner is None else self._left(owner.axis)
        if not 0 <= index < left.size:
            raise ConfigError(
                f'dimension {dim} of {param!r} has no index {index}; expected 0 to {left.size - 1}'
            )
        node = -1 if owner is None else int(owner.axis.ids[left[index]])
        if owner is None or node < 0:
            return self._explain_constant(param, dim, index, size, node)
        found = Connections(self.coupling, node, self.structure.label)
        unit, kind = self.parts.unit_of[node], KINDS[self.structure.kind[found.unit]]
        ties = self._find_ties(found)
        if unit < 0:
            reason = int(self.structure.reason[found.unit])
            text = self.coupling.axes.reasons.texts[reason]
            held_by = without_repeats(found.way_to_reason(reason))
            return Explanation(param, dim, index, kind, None, None, 0, text, held_by, ties)
        group = int(self.parts.group_of[unit])
        same = np.flatnonzero((self.parts.group_of == group) & ~self.gone)
        position = int(np.searchsorted(same, unit))
        return Explanation(
            param, dim, index, kind, names[group], position, same.size, None, (), ties
        )

    def _check(self, param: str, dim: int) -> int:
        """Return the size that a dimension had when it was traced; raise if there is none such."""
        tensor = self.tensors.get(param)
        if tensor is None:
            raise ConfigError(
                f'there is no parameter or buffer {param!r}; {nearest(param, self.tensors)}'
            )
        if not isinstance(dim, int) or not 0 <= dim < tensor.dim():
            raise ConfigError(
                f'{param!r} has no dimension {dim!r}; expected 0 to {tensor.dim() - 1}'
            )
        axes = self.coupling.axes.of_parameter(param)
        return axes[dim].size if axes else tensor.shape[dim]  # what is not used is not cut

    def _explain_constant(
        self, param: str, dim: int, index: int, size: int, node: int
    ) -> Explanation:
        """Return why an index stays that has no node."""
        axes = self.coupling.axes.of_parameter(param)
        kind = kind_of_constant(self.coupling, axes[dim] if axes else None)
        owned = (param, dim) in self.coupling.axes.owners
        text = (
            self.coupling.axes.reasons.texts[-node - 1]
            if owned
            else self.coupling.axes.explain_unowned(param, dim, size, self.tensors[param])
        )
        return Explanation(param, dim, index, kind, None, None, 0, text, (), ())

    def _left(self, axis: Axis) -> Ids:
        """Return the indices of an axis, as it was traced, that no cut has removed."""
        units = np.append(self.parts.unit_of, -1)[np.maximum(axis.ids, -1)]
        return np.flatnonzero(~((units >= 0) & np.append(self.gone, False)[units]))

    def _find_ties(self, found: Connections) -> tuple[Tied, ...]:
        """Return the channels of parameters that are in the unit of a node."""
        readers = find_readers(self.coupling)
        ties = []
        for number, owner in enumerate(self.coupling.axes.owners.values()):
            ids = owner.axis.ids[self._left(owner.axis)]
            inside = np.flatnonzero(np.isin(ids, found.nodes))
            if inside.size:
                use = self._describe_use(owner.param, number)
                way = found.way_to(found.nearest(ids[inside]))
                if way and way[-1] in _names_of_product(use):
                    way.pop()
                ties.append(
                    Tied(
                        param=owner.param,
                        dim=owner.dim,
                        indices=tuple(inside.tolist()),
                        reads=owner in readers,
                        operations=without_repeats([*way, use]),
                    )
                )
        return tuple(ties)

    def _describe_use(self, param: str, number: int) -> str:
        """Return the operation that first uses a dimension of a parameter.

        Args:
            param: the parameter.
            number: the number of the dimension among those that have axes.
        """
        found = self.coupling.history.reading_operation(number)
        operand = self.coupling.tally.operands.get(param)
        if found is not None and operand is not None:  # not a view of it
            found = operand.partition('.')[0], found[1]
        return describe_operation(found)


def _names_of_product(use: str) -> list[str]:
    """Return the texts for operations that a linear layer may be recorded as."""
    name, _, module = use.partition(' ')
    return [f'{other} {module}' for other in _PRODUCTS] if name == 'linear' else []
