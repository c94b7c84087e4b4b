"""The wiring of a network: its layers in order, and the layers of each group."""

from __future__ import annotations

import colorsys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from easypruner.graph import ChannelGraph, ChannelGroup

Part = Literal['makes', 'carries', 'reads']

_GOLDEN_ANGLE = 0.381966


@dataclass(frozen=True)
class Layer:
    """A module that owns parameters.

    Attributes:
        path: the dotted path of the module.
        kind: the name of its class, such as ``'Conv2d'``.
        shape: the shape of its first parameter.
        frozen: the reasons why all its channels are frozen; '' if some can be pruned.
    """

    path: str
    kind: str
    shape: tuple[int, ...]
    frozen: str


@dataclass(frozen=True)
class Thread:
    """The layers of a group.

    Attributes:
        group: the name of the group.
        units: the number of units.
        parts: number of a layer -> what the layer does with the channels of the group.
    """

    group: str
    units: int
    parts: dict[int, tuple[Part, ...]]

    def layers(self, part: Part) -> list[int]:
        """Return the numbers of the layers that make, carry or read the channels."""
        return [number for number, parts in self.parts.items() if part in parts]

    def edges(self) -> Iterator[tuple[int, int, Part]]:
        """Yield (layer, later layer, what the later layer does with the channels).

        There is an edge from each layer that makes channels to all later layers that read them. A
        layer that carries channels on has an edge from the last layer before it that makes them.
        """
        makers = self.layers('makes')
        for maker in makers:
            for reader in self.layers('reads'):
                if reader > maker:
                    yield maker, reader, 'reads'
        for carrier in self.layers('carries'):
            before = [maker for maker in makers if maker < carrier]
            if before:
                yield before[-1], carrier, 'carries'


@dataclass(frozen=True)
class Wiring:
    """The layers of a network, in the order of the forward pass, and a thread for each group."""

    layers: tuple[Layer, ...]
    threads: tuple[Thread, ...]

    def made_by(self, number: int) -> int | None:
        """Return the number of the thread whose channels a layer makes or carries, or None."""
        for thread_number, thread in enumerate(self.threads):
            if set(thread.parts.get(number, ())) & {'makes', 'carries'}:
                return thread_number
        return None


def wire(graph: ChannelGraph) -> Wiring:
    """Return the wiring of a network."""
    paths = _in_order(graph)
    number = {path: n for n, path in enumerate(paths)}
    threads = tuple(_thread(graph, group, number) for group in graph.groups.values())
    prunable = {n for thread in threads for n in thread.parts}
    reasons: dict[str, dict[str, None]] = defaultdict(dict)
    for entry in graph.frozen:
        reasons[entry.param.rpartition('.')[0]][entry.reason] = None
    layers = []
    for n, path in enumerate(paths):
        module = graph.model.get_submodule(path)
        first = next(module.parameters(recurse=False))
        why = '' if n in prunable else '; '.join(reasons[path])
        layers.append(Layer(path, type(module).__name__, tuple(first.shape), why))
    return Wiring(tuple(layers), threads)


def _in_order(graph: ChannelGraph) -> list[str]:
    """Return the modules that own parameters. Those that the forward pass skips come last."""
    used = [name.rpartition('.')[0] for name in graph.operands]
    holders = dict.fromkeys(name.rpartition('.')[0] for name, _ in graph.model.named_parameters())
    return [path for path in dict.fromkeys((*used, *holders)) if path in holders]


def _thread(graph: ChannelGraph, group: ChannelGroup, number: dict[str, int]) -> Thread:
    roles: dict[int, set[Part]] = defaultdict(set)
    for member in group.members:
        if member.module not in number:
            continue
        part: Part = 'reads'
        if member.role == 'out':
            part = 'makes' if _has_inputs(graph, member.param) else 'carries'
        roles[number[member.module]].add(part)
    if not any('makes' in parts for parts in roles.values()):
        # If no layer has its own inputs, the channels start at the first layer that carries them.
        first = min((n for n, parts in roles.items() if 'carries' in parts), default=None)
        if first is not None:
            roles[first].add('makes')
    for parts in roles.values():
        if 'makes' in parts:
            parts.discard('carries')
    in_order = {n: tuple(sorted(parts)) for n, parts in sorted(roles.items())}
    return Thread(group.name, group.size, in_order)


def _has_inputs(graph: ChannelGraph, param: str) -> bool:
    """Return whether a parameter sums over several channels, unlike a scale or depthwise weight."""
    shape = graph.parameter(param).shape
    return len(shape) > 1 and shape[1] > 1


def colour(number: int, lightness: float = 0.45) -> str:
    """Return a different colour for each thread, as ``'#rrggbb'``; neighbours differ most."""
    rgb = colorsys.hls_to_rgb(number * _GOLDEN_ANGLE % 1, lightness, 0.65)
    return '#' + ''.join(f'{round(255 * value):02x}' for value in rgb)
