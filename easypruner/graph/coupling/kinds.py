"""Kinds: groups of the same layers, such as the MLPs of all blocks, which keep the same widths."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import nn

from easypruner.graph.coupling.groups import ChannelGroup
from easypruner.graph.recording.inventory import dotted_name

_TORCH = 'torch.'


def kinds_of(
    names: Iterable[str], groups: Mapping[str, ChannelGroup], modules: Mapping[str, nn.Module]
) -> dict[str, str]:
    """Return group -> its kind: the name of the first group that the same code makes.

    Two groups are of a kind if their first weight is the same parameter of the same class, they
    cut the same dimension of it, and they have as many units.

    Args:
        names: the names of the groups.
        groups: all groups of a graph.
        modules: path -> module of the network.
    """
    found: dict[str, str] = {}
    firsts: dict[tuple[object, ...], str] = {}
    for name in names:
        group = groups[name]
        maker = group.producers[0]
        key = (*_of_class(maker.param, modules), maker.dim, group.size)
        found[name] = firsts.setdefault(key, name)
    return found


def _of_class(param: str, modules: Mapping[str, nn.Module]) -> tuple[object, str]:
    """Return the class whose code has a parameter, and the path of the parameter in it.

    Classes of torch are parts of it, and numbers in the path are ignored.
    """
    path, _, rest = param.rpartition('.')
    while path and type(modules[path]).__module__.startswith(_TORCH):
        path, _, local = path.rpartition('.')
        rest = dotted_name(local, rest)
    return type(modules[path]), re.sub(r'(?<![^.])\d+(?![^.])', '#', rest)
