"""Demands: what the widths of some layers have to be multiples of, and how small they may get."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from easypruner.graph.coupling.axes import Axis
from easypruner.graph.coupling.coupling import Coupling
from easypruner.graph.coupling.groups import Partition
from easypruner.graph.limits import Limits


def with_demands(
    limits: Mapping[str, Limits], coupling: Coupling, parts: Partition, names: Sequence[str]
) -> dict[str, Limits]:
    """Return the limits of groups, so that operations run with the widths that stay.

    Args:
        limits: group -> its limits. A ``round_to`` of its own is met as well.
        coupling: has the axes with demands.
        parts: how the nodes fall into groups.
        names: the names of the groups.
    """
    found = dict(limits)
    steps: dict[str, int] = {}
    for name, share, number in _of_groups(coupling.tally.multiples, parts, names):
        steps[name] = math.lcm(number // math.gcd(number, share), steps.get(name, 1))
    for name, step in steps.items():
        own = found.get(name, Limits())
        if step > 1:
            found[name] = replace(own, round_to=math.lcm(own.step, step))
    for name, share, number in _of_groups(coupling.tally.minimums, parts, names):
        own = found.get(name, Limits())
        found[name] = replace(own, min_units=max(own.min_units, -(-number // share)))
    return found


def _of_groups(
    demands: Sequence[tuple[Axis, int]], parts: Partition, names: Sequence[str]
) -> Iterator[tuple[str, int, int]]:
    """Yield (group, indices of each of its units, number) for each group in an axis."""
    for axis, number in demands:
        units = parts.unit_of[axis.nodes]
        of_axis = parts.group_of[units[units >= 0]]
        for group in parts.groups_of(axis):
            yield names[group], int((of_axis == group).sum()) // int(parts.sizes[group]), number
