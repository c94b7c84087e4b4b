"""A runtime whose networks take time by a known law, on a clock that only they advance."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from easypruner.base.modules import copy_of
from easypruner.errors import EasyPrunerError
from easypruner.graph import ChannelGraph
from easypruner.graph.pruning import prune
from easypruner.graph.recording.tape import call_arguments
from easypruner.runtimes import Exported, Runtime, Session

NANOSECOND = 1e-9


class Clock:
    """A clock that advances only when a network runs.

    Attributes:
        load: a factor of the time of each pass.
        passes: the number of passes so far.
        networks: the number of whole networks that were loaded.
        layers: the number of layers that were loaded alone.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.load: Iterator[float] = itertools.repeat(1.0)
        self.passes = self.networks = self.layers = 0

    def __call__(self) -> float:
        # Passes in torch take no time by this clock, but not none at all.
        self.now += 1e-15
        return self.now

    def advance(self, seconds: float) -> None:
        """Let a pass take some seconds."""
        self.now += seconds * next(self.load)
        self.passes += 1


CLOCK = Clock()


def use_clock(patch: pytest.MonkeyPatch, cache: Path) -> Clock:
    """Let networks be timed by the clock, from its start, with an empty cache of times."""
    CLOCK.__init__()  # type: ignore[misc]
    patch.setattr('easypruner.runtimes.timing._CLOCKS', {'wall': CLOCK, 'cpu': CLOCK})
    # A collection takes longer than everything else here.
    patch.setattr('gc.collect', lambda: 0)
    patch.setenv('EASYPRUNER_CACHE', str(cache))
    return CLOCK


POINTWISE = 1.0
"""A factor of the time of convolutions of a single position."""


def layer_seconds(layer: nn.Module, output: Tensor) -> float:
    """Return a nanosecond for each multiply-add of a convolution or linear layer."""
    if isinstance(layer, nn.Linear):
        return NANOSECOND * layer.weight.numel() * output.numel() / layer.out_features
    if not isinstance(layer, _ConvNd):
        return 0.0
    factor = POINTWISE if set(layer.kernel_size) == {1} else 1.0
    return factor * NANOSECOND * layer.weight.numel() * output.numel() / layer.out_channels


def network_seconds(network: nn.Module, inputs: Any) -> float:
    """Return the seconds of the layers of a network, by an own forward pass."""
    found: list[float] = []
    copy = copy_of(network).eval()
    for module in copy.modules():
        module.register_forward_hook(lambda m, _, output: found.append(layer_seconds(m, output)))
    positional, named = call_arguments(inputs)
    with torch.no_grad():
        copy(*positional, **named)
    return sum(found)


class Clocked(Runtime):
    """Takes a nanosecond for each multiply-add of layers, and time besides them.

    Args:
        threads: the number of threads.
        call: the seconds of a call of any network.
        slower: a function of the share of the layers' time in that of the unpruned network, by
            which a whole network takes more time than its layers.
    """

    def __init__(
        self,
        threads: int = 1,
        call: float = 0.0,
        slower: Callable[[float], float] = lambda share: 1.0,
    ) -> None:
        super().__init__(threads, 'documented')
        self.call = call
        self.slower = slower
        self._whole = 0.0
        self.refused: type[nn.Module] | None = None

    def versions(self) -> dict[str, str]:
        return {'clocked': '1'}

    def export(self, network: nn.Module, inputs: Any, folder: Path, name: str) -> Exported:
        raise NotImplementedError

    def load(self, path: Path) -> Session:
        raise NotImplementedError

    def session(self, network: nn.Module, inputs: Any) -> Session:
        CLOCK.networks += 1
        seconds = network_seconds(network, inputs)
        self._whole = max(self._whole, seconds)
        return self._taking(seconds * self.slower(seconds / self._whole))

    def layer_sessions(self, layers: Sequence[tuple[nn.Module, Any]]) -> list[Session]:
        CLOCK.layers += len(layers)
        for layer, _ in layers:
            if self.refused is not None and isinstance(layer, self.refused):
                raise EasyPrunerError(f'no {type(layer).__name__}')
        return [self._taking(network_seconds(layer, inputs)) for layer, inputs in layers]

    def _taking(self, seconds: float) -> Session:
        def bind(inputs: Any) -> Callable[[], tuple[Tensor, ...]]:
            def run() -> tuple[Tensor, ...]:
                CLOCK.advance(seconds + self.call)
                return ()

            return run

        return Session(bind)

    def share(self, graph: ChannelGraph, masks: Mapping[str, Tensor]) -> float:
        """Return the share of the time that is left under masks, of really pruned networks."""
        pruned = copy_of(graph.model)
        prune(pruned, masks, graph=graph.on(pruned))
        whole = network_seconds(graph.model, graph.example_inputs)
        part = network_seconds(pruned, graph.example_inputs)
        times = [s * self.slower(s / whole) + self.call for s in (part, whole)]
        return times[0] / times[1]
