"""A network that torch.compile runs is compiled again after each of many cuts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from easypruner import prune, trace, verify

_CUTS = 12  # more than dynamo's recompile limit of 8


class _Counting:
    """A backend that counts the runs of what it has compiled."""

    def __init__(self) -> None:
        self.runs = self.compiled = 0

    def __call__(self, module: nn.Module, inputs: list[Tensor]) -> Callable[..., Any]:
        self.compiled += 1

        def run(*args: Any) -> Any:
            self.runs += 1
            return module(*args)

        return run


def compiled_by(way: str, net: nn.Module, backend: _Counting) -> Callable[[Tensor], Tensor]:
    """Let torch compile a network, or something that calls it."""
    if way == 'module.compile()':
        net.compile(backend=backend)
        return net
    if way == 'its forward':
        net.forward = torch.compile(net.forward, backend=backend)  # type: ignore[method-assign]
        return net
    called = net if way == 'torch.compile' else lambda x: net(x)
    compiled: Callable[[Tensor], Tensor] = torch.compile(called, backend=backend)
    return compiled


@pytest.mark.slow
@pytest.mark.parametrize('way', ['torch.compile', 'module.compile()', 'its forward', 'a function'])
def test_a_compiled_network_does_not_fall_back_to_eager(way: str) -> None:
    backend = _Counting()
    net = nn.Sequential(nn.Conv2d(3, 16, 1), nn.ReLU(), nn.Conv2d(16, 4, 1))
    compiled = compiled_by(way, net, backend)
    x = torch.rand(1, 3, 4, 4)
    graph = trace(net, x)
    for number in range(_CUTS):
        (group,) = graph.groups.values()
        masks = {group.name: torch.arange(group.size) > 0}
        if number % 2:
            graph.plan(masks).apply()
        else:
            prune(net, masks, graph=graph)
        backend.runs = 0
        assert compiled(x).shape == (1, 4, 4, 4)
        assert backend.runs == 1, f'not compiled after {number + 1} cuts'
    assert net[0].out_channels == 16 - _CUTS


@pytest.mark.slow
def test_a_cut_keeps_what_was_compiled_if_only_a_copy_of_the_network_is_cut() -> None:
    backend = _Counting()
    net = nn.Sequential(nn.Conv2d(3, 16, 1), nn.ReLU(), nn.Conv2d(16, 4, 1))
    compiled, x = torch.compile(net, backend=backend), torch.rand(1, 3, 4, 4)
    compiled(x)
    assert verify(net, {'0': torch.arange(16) > 3}, x).passed
    compiled(x)
    assert backend.compiled == 1 and backend.runs == 2
