"""Multiples: the numbers of which the widths of some layers have to be multiples."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from easypruner.graph.coupling.coupling import Coupling
from easypruner.graph.coupling.groups import Partition
from easypruner.graph.limits import Limits


def with_multiples(
    limits: Mapping[str, Limits], coupling: Coupling, parts: Partition, names: list[str]
) -> dict[str, Limits]:
    """Return the limits of groups, so that widths are multiples of what operations demand.

    Args:
        limits: group -> its limits. A grid of its own, or of a target, takes precedence.
        coupling: has the axes with multiples.
        parts: how the nodes fall into groups.
        names: the names of the groups.
    """
    steps: dict[str, int] = {}
    for axis, number in coupling.tally.multiples:
        units = parts.unit_of[axis.nodes]
        of_axis = parts.group_of[units[units >= 0]]
        for group in parts.groups_of(axis):
            share = int((of_axis == group).sum()) // int(parts.sizes[group])
            step = number // math.gcd(number, share)
            steps[names[group]] = math.lcm(step, steps.get(names[group], 1))
    found = dict(limits)
    for name, step in steps.items():
        own = found.get(name, Limits())
        if own.round_to in (None, 1) and step > 1:
            found[name] = replace(own, round_to=step)
    return found
