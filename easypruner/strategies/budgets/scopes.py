"""Scopes: which groups are ranked together when a share of units is asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from easypruner.graph.coupling.groups import ChannelGroup
from easypruner.graph.graph import ChannelGraph


def _structure(graph: ChannelGraph, group: ChannelGroup) -> str:
    """Return what a group is made of: groups of equal structure are isomorphic.

    Ranking only such together is Isomorphic Pruning (Fang et al., 2024, arXiv 2407.04616).
    """
    parts = Counter((m.operand, m.dim, m.role, graph.parameter(m.param).dim())
                    for m in group.members)  # fmt: skip
    return repr(sorted(parts.items()))


def _extent(graph: ChannelGraph, group: ChannelGroup) -> str:
    """Return the spatial extent at which a group's channels are made."""
    return repr(next((graph.extents.get(m.param) for m in group.producers), None))


SCOPES: dict[str, Callable[[ChannelGraph, ChannelGroup], str]] = {
    'global': lambda graph, group: '',
    'layer': lambda graph, group: group.name,
    'stage': _extent,
    'isomorphic': _structure,
}
"""Name -> what two groups must agree in to be ranked together.

``global``: nothing. ``layer``: each group is ranked by itself. ``stage``: the spatial extent.
``isomorphic``: what they are made of.
"""


def scopes_of(graph: ChannelGraph, scope: str) -> list[list[str]]:
    """Return the groups of a graph, those in one list to be ranked together.

    Args:
        graph: of the model.
        scope: a name of :data:`SCOPES`.
    """
    together: dict[str, list[str]] = {}
    for name, group in graph.groups.items():
        together.setdefault(SCOPES[scope](graph, group), []).append(name)
    return list(together.values())
