"""A network that torch.compile runs is compiled again after each of many cuts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from easypruner import prune, trace

_CUTS = 12  # more than dynamo's recompile limit of 8


class _Counting:
    """A backend that counts the runs of what it has compiled."""

    def __init__(self) -> None:
        self.runs = 0

    def __call__(self, module: nn.Module, inputs: list[Tensor]) -> Callable[..., Any]:
        def run(*args: Any) -> Any:
            self.runs += 1
            return module(*args)

        return run


@pytest.mark.slow
@pytest.mark.parametrize('in_place', [False, True])
def test_a_compiled_network_does_not_fall_back_to_eager(in_place: bool) -> None:
    backend = _Counting()
    net = nn.Sequential(nn.Conv2d(3, 16, 1), nn.ReLU(), nn.Conv2d(16, 4, 1))
    compiled: nn.Module = net
    if in_place:
        net.compile(backend=backend)
    else:
        compiled = torch.compile(net, backend=backend)
    x = torch.rand(1, 3, 4, 4)
    graph = trace(compiled, x)
    for number in range(_CUTS):
        (group,) = graph.groups.values()
        prune(compiled, {group.name: torch.arange(group.size) > 0}, graph=graph)
        backend.runs = 0
        assert compiled(x).shape == (1, 4, 4, 4)
        assert backend.runs == 1, f'not compiled after {number + 1} cuts'
    assert net[0].out_channels == 16 - _CUTS
