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
    found = dict(limits)
    for axis, number in coupling.tally.multiples:
        for group in parts.groups_of(axis):
            own = found.get(names[group], Limits())
            units = parts.unit_of[axis.nodes]
            share = int((parts.group_of[units[units >= 0]] == group).sum()) // parts.sizes[group]
            step = number // math.gcd(number, int(share))
            if own.round_to in (None, 1) and step > 1:
                found[names[group]] = replace(own, round_to=step)
    return found
