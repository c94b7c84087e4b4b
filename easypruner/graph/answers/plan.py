"""Plans: a cut as it will be, looked at before it is made."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from easypruner.graph.answers.shares import KindShare
from easypruner.graph.coupling.cost import Cost
from easypruner.graph.coupling.groups import ChannelGroup
from easypruner.graph.cutting.record import ArchitectureRecord
from easypruner.graph.limits import Limits
from easypruner.graph.masks import Masks

Shape = tuple[int, ...]


@dataclass(frozen=True)
class PlannedLayer:
    """A module that a cut changes.

    Attributes:
        path: its dotted path.
        type: its class.
        shapes: parameter or buffer -> its shape before and after the cut, if it changes.
        before: its cost before the cut.
        after: its cost after it.
    """

    path: str
    type: str
    shapes: Mapping[str, tuple[Shape, Shape]]
    before: Cost
    after: Cost


@dataclass(frozen=True)
class PlannedGroup:
    """A group that loses units.

    Attributes:
        name: its name.
        before: the number of its units.
        after: the number of units that stay.
        problem: what its limits say against that; None if nothing.
    """

    name: str
    before: int
    after: int
    problem: str | None = None


@dataclass(frozen=True)
class LeftAlone:
    """Units that a cut leaves alone.

    Attributes:
        what: a group, or a kind of structure.
        units: their number.
        reason: why they stay.
    """

    what: str
    units: int
    reason: str


@dataclass(frozen=True, eq=False)
class Plan:
    """A cut as it will be. ``print()`` shows it, and :meth:`apply` makes it.

    Attributes:
        network: the class of the network.
        masks: group -> which units stay.
        sizes: group -> the number of its units before the cut.
        before: the cost before the cut.
        after: the cost after it.
        layers: the modules that change, in the order of the forward pass.
        groups: the groups that lose units.
        numbers: the numbers in the model's code that the cut sets: their names, and their values
            before and after.
        left_alone: what stays as it is, and why.
    """

    network: str
    masks: Masks
    sizes: Mapping[str, int]
    before: Cost
    after: Cost
    layers: tuple[PlannedLayer, ...]
    groups: tuple[PlannedGroup, ...]
    numbers: tuple[str, ...]
    left_alone: tuple[LeftAlone, ...]
    _apply: Callable[..., ArchitectureRecord]

    def apply(self, **options: Any) -> ArchitectureRecord:
        """Make the cut, as :func:`easypruner.prune` does, and return its record.

        Args:
            **options: ``optimizer``, ``copies`` and ``optimizer_handlers`` of
                :func:`easypruner.prune`.

        Raises:
            CutError: the network was cut since the plan was made, or cannot be cut.
        """
        return self._apply(**options)

    def to_json(self) -> dict[str, Any]:
        """Return the plan as plain values. The masks are lists of the units that stay."""
        return {
            'network': self.network,
            'before': asdict(self.before),
            'after': asdict(self.after),
            'layers': [asdict(layer) for layer in self.layers],
            'groups': [asdict(group) for group in self.groups],
            'numbers': list(self.numbers),
            'left_alone': [asdict(entry) for entry in self.left_alone],
            'masks': {name: mask.nonzero().flatten().tolist() for name, mask in self.masks.items()},
        }

    def __str__(self) -> str:
        return '\n'.join(self._lines())

    def _lines(self) -> Iterator[str]:
        units = f'{self.masks.removed_units} of {sum(self.sizes.values())} units'
        yield f'{self.network}: {units} go, in {len(self.groups)} of {len(self.sizes)} groups'
        for name in ('macs', 'params', 'activations'):
            before, after = getattr(self.before, name), getattr(self.after, name)
            share = f' ({after / before:.1%})' if before else ''
            yield f'  {name:11}  {before:,} -> {after:,}{share}'
        yield from _section('layers', map(_layer_line, self.layers))
        problems = (f'{g.name}: {g.problem}' for g in self.groups if g.problem is not None)
        yield from _section('against the limits', problems)
        yield from _section('numbers in the code', self.numbers)
        alone = (f'{each.what}, {each.units} units: {each.reason}' for each in self.left_alone)
        yield from _section('left alone', alone)


def _section(title: str, lines: Iterable[str]) -> Iterator[str]:
    """Yield a title and lines, or nothing if there are none."""
    found = list(lines)
    if found:
        yield title
        yield from (f'  {line}' for line in found)


def _layer_line(layer: PlannedLayer) -> str:
    """Return the text for a layer: the change of its largest tensor, and its share of the cost."""
    name, (before, after) = max(layer.shapes.items(), key=lambda entry: len(entry[1][0]))
    shapes = ' -> '.join(' x '.join(map(str, shape)) for shape in (before, after))
    costs = [f'params {layer.before.params:,} -> {layer.after.params:,}']
    if layer.before.macs:
        costs.append(f'MACs {layer.before.macs:,} -> {layer.after.macs:,}')
    path = layer.path or 'the model itself'
    return f'{path} ({layer.type}): {name} {shapes}, {", ".join(costs)}'


class Planned(Protocol):
    """A channel graph, to plan a cut with."""

    model: nn.Module
    groups: dict[str, ChannelGroup]
    limits: dict[str, Limits]

    @property
    def shares(self) -> tuple[KindShare, ...]:
        """How much of each kind of structure can go."""

    def parameter(self, name: str) -> Tensor:
        """Return the parameter or buffer with a dotted name."""

    def cost(self, masks: Mapping[str, Tensor] | None = None) -> Cost:
        """Return the cost under masks."""

    def layer_costs(self, masks: Mapping[str, Tensor] | None = None) -> dict[str, Cost]:
        """Return path of a module -> its part of the cost."""

    def repairs(self, masks: Mapping[str, Tensor]) -> tuple[object, ...]:
        """Return the numbers in the model's code that a cut changes."""

    def keep(self, masks: Mapping[str, Tensor]) -> dict[tuple[str, int], Tensor]:
        """Return the masks of parameters and buffers."""


def make_plan(graph: Planned, masks: Masks, apply: Callable[..., ArchitectureRecord]) -> Plan:
    """Return the plan of a cut.

    Args:
        graph: the graph of the network.
        masks: which units stay.
        apply: makes the cut.
    """
    sizes = {name: group.size for name, group in graph.groups.items()}
    return Plan(
        network=type(graph.model).__name__,
        masks=masks,
        sizes=sizes,
        before=graph.cost(),
        after=graph.cost(masks),
        layers=tuple(_plan_layers(graph, masks)),
        groups=tuple(_plan_groups(masks, sizes, graph.limits)),
        numbers=tuple(map(str, graph.repairs(masks))),
        left_alone=tuple(_find_left_alone(masks, sizes, graph.shares)),
        _apply=apply,
    )


def _plan_layers(graph: Planned, masks: Masks) -> Iterator[PlannedLayer]:
    """Yield the modules that a cut changes, in the order of the forward pass."""
    before, after = graph.layer_costs(), graph.layer_costs(masks)
    shapes: dict[str, dict[str, tuple[Shape, Shape]]] = {}
    for (param, dim), kept in graph.keep(masks).items():
        path, _, name = param.rpartition('.')
        old = tuple(graph.parameter(param).shape)
        _, new = shapes.setdefault(path, {}).get(name, (old, old))
        shapes[path][name] = old, (*new[:dim], int(kept.sum()), *new[dim + 1 :])
    for path in dict.fromkeys([*before, *shapes]):
        if path in shapes:
            kind = type(graph.model.get_submodule(path)).__name__
            costs = (costs.get(path, Cost(0, 0)) for costs in (before, after))
            yield PlannedLayer(path, kind, shapes[path], *costs)


def _plan_groups(
    masks: Mapping[str, Tensor], sizes: Mapping[str, int], limits: Mapping[str, Limits]
) -> Iterator[PlannedGroup]:
    """Yield the groups that lose units.

    Args:
        masks: group -> which units stay.
        sizes: group -> the number of its units.
        limits: group -> its limits, for groups that have limits.
    """
    for name, mask in masks.items():
        before, after = sizes[name], int(mask.sum())
        if after < before:
            allowed = limits.get(name, Limits()).widths(before)
            problem = None if after in allowed else _describe_limit(after, allowed)
            yield PlannedGroup(name, before, after, problem)


def _describe_limit(after: int, allowed: tuple[int, ...]) -> str:
    nearest = sorted(sorted(allowed, key=lambda width: abs(width - after))[:2])
    return f'{after} units stay; the nearest that its limits allow: {", ".join(map(str, nearest))}'


def _find_left_alone(
    masks: Mapping[str, Tensor], sizes: Mapping[str, int], shares: Iterable[KindShare]
) -> Iterator[LeftAlone]:
    """Yield the groups that stay whole, and then what cannot be pruned by kind of structure.

    Args:
        masks: group -> which units stay.
        sizes: group -> the number of its units.
        shares: how much of each kind of structure can go.
    """
    for name, size in sizes.items():
        mask = masks.get(name)
        if mask is None:
            yield LeftAlone(f'group {name!r}', size, 'there is no mask for it')
        elif bool(mask.all()):
            yield LeftAlone(f'group {name!r}', size, 'its mask keeps all units')
    for share in shares:
        for held in share.held:
            yield LeftAlone(share.kind, held.units, held.reason)
