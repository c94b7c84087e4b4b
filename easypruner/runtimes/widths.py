"""The widths that are fast: from the grids of a runtime to numbers of units of each group."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import gcd, lcm
from typing import ClassVar

from easypruner.graph import ChannelGraph, ChannelGroup, Member
from easypruner.runtimes.kinds import KINDS, kind_of
from easypruner.runtimes.runtime import Runtime

GENERAL = {'dense': 16, 'depthwise': 16, 'grouped': 16, 'first': 16, 'linear': 1}
"""Kind of layer -> a grid that is fast in every runtime that was measured, for no target."""


@dataclass(frozen=True)
class LayerGrid:
    """The grid that one layer asks of a group.

    Attributes:
        param: the weight of the layer.
        kind: its kind.
        channels: its grid, in channels; of grouped layers, in channels of a group.
        units: the same in units of the group.
        per_unit: the channels of a unit; of grouped layers, those in each group.
    """

    param: str
    kind: str
    channels: int
    units: int
    per_unit: int


def layer_grids(
    graph: ChannelGraph, group: ChannelGroup, grid: Callable[[str], int]
) -> Iterator[LayerGrid]:
    """Yield the grid of each layer that makes or reads the channels of a group.

    Args:
        graph: the graph.
        group: one of its groups.
        grid: kind of layer -> its grid in channels.
    """
    for member in group.members:
        kind = kind_of(graph, member)
        if kind is not None:
            channels, per_unit = grid(kind), _channels_per_unit(member, kind)
            # Without channels in a unit, the width of the layer's groups does not change.
            units = channels // gcd(channels, per_unit) if per_unit else 1
            yield LayerGrid(member.param, kind, channels, units, per_unit)


def unit_grid(graph: ChannelGraph, group: ChannelGroup, grid: Callable[[str], int]) -> int:
    """Return the number of units of which a group should keep a multiple.

    Args:
        graph: the graph.
        group: one of its groups.
        grid: kind of layer -> its grid in channels.
    """
    return lcm(*(found.units for found in layer_grids(graph, group, grid)))


def _channels_per_unit(member: Member, kind: str) -> int:
    """Return by how many channels the width grows with a unit; of grouped layers, in each group.

    A unit of a grouped layer is either a whole group, which has neighbouring channels, or one
    channel of each group. Only in this case the groups become narrower.
    """
    per_unit = int(member.index.shape[1])
    if kind != 'grouped':
        return per_unit
    whole = per_unit > 1 and bool((member.index[:, 1] - member.index[:, 0] == 1).all())
    return 0 if whole and member.dim == 0 else 1


@dataclass(frozen=True)
class Target:
    """The runtime that the widths of a pruned network are chosen for.

    Attributes:
        runtime: the runtime.
    """

    runtime: Runtime
    implied: ClassVar[bool] = True

    @property
    def name(self) -> str:
        """The name of the runtime."""
        return self.runtime.name

    def describe(self) -> str:
        """Return a line about the grids: of what, and where they come from."""
        of_kinds: dict[int, list[str]] = {}
        for kind in KINDS:
            of_kinds.setdefault(self.runtime.grid(kind), []).append(kind)
        grids = [f'of {g} ({", ".join(kinds)})' for g, kinds in of_kinds.items() if g > 1]
        widths = f'multiples {" and ".join(grids)}' if grids else 'of any size'
        where = 'as documented' if self.runtime.probe is None else 'measured on this machine'
        return f'target {self.name}: widths are {widths}, {where}'

    def grids(self, graph: ChannelGraph) -> dict[str, int]:
        """Return group -> the number of units of which it should keep a multiple."""
        return {
            name: unit_grid(graph, group, self.runtime.grid) for name, group in graph.groups.items()
        }


@dataclass(frozen=True)
class AnyRuntime:
    """Stands for all runtimes: widths that are fast wherever it was measured.

    Attributes:
        implied: whether groups without a ``round_to`` of their own keep to these widths.
    """

    implied: bool = False
    name: ClassVar[str] = 'any runtime'

    def grids(self, graph: ChannelGraph) -> dict[str, int]:
        """Return group -> the number of units of which it should keep a multiple.

        It is at most a quarter of the group, so that narrow layers can still be pruned.
        """
        return {
            name: min(unit_grid(graph, group, GENERAL.__getitem__), _part(group.size))
            for name, group in graph.groups.items()
        }


def _part(size: int) -> int:
    """Return the largest power of two that is at most a quarter of a number."""
    return 1 << max((size // 4).bit_length() - 1, 0)
