"""Scopes: which groups a budget ranks together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from easypruner.graph.coupling.groups import ChannelGroup
from easypruner.graph.graph import ChannelGraph


def _structure(graph: ChannelGraph, group: ChannelGroup) -> str:
    """Return the parts of a group; groups with the same parts are isomorphic.

    Isomorphic Pruning (Fang et al., 2024, arXiv 2407.04616) ranks only such groups together.
    """
    parts = Counter((m.operand, m.dim, m.role, graph.parameter(m.param).dim())
                    for m in group.members)  # fmt: skip
    return repr(sorted(parts.items()))


def _extent(graph: ChannelGraph, group: ChannelGroup) -> str:
    """Return the height and width of the maps in which a group's channels are produced."""
    return repr(next((graph.extents.get(m.param) for m in group.producers), None))


SCOPES: dict[str, Callable[[ChannelGraph, ChannelGroup], str]] = {
    'global': lambda graph, group: '',
    'layer': lambda graph, group: group.name,
    'stage': _extent,
    'isomorphic': _structure,
}
"""Name -> the property that groups have in common if they are ranked together.

``global``: all groups are ranked together. ``layer``: each group is ranked by itself. ``stage``:
groups with maps of the same height and width. ``isomorphic``: groups with the same parts.
"""


def scopes_of(graph: ChannelGraph, scope: str) -> list[list[str]]:
    """Return lists of group names; the groups of one list are ranked together.

    Args:
        graph: the channel graph of the model.
        scope: a name of :data:`SCOPES`.
    """
    together: dict[str, list[str]] = {}
    for name, group in graph.groups.items():
        together.setdefault(SCOPES[scope](graph, group), []).append(name)
    return list(together.values())
