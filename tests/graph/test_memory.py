"""Memory of a trace, its costs, its answers and a cut: it grows with the depth of a network."""

from __future__ import annotations

import gc
import tracemalloc

import pytest
import torch
from torch import nn
from torchvision.models import VisionTransformer

import easypruner

_EXCESS = 1.25


def make_chain(depth: int) -> nn.Module:
    return nn.Sequential(*(nn.Conv2d(4, 4, 1) for _ in range(depth)))


def make_transformer(depth: int) -> nn.Module:
    return VisionTransformer(16, 8, depth, 2, 16, 32)


def peak(model: nn.Module, *size: int) -> int:
    gc.collect()
    tracemalloc.start()
    graph = easypruner.trace(model, torch.zeros(1, *size))
    masks = {name: torch.arange(group.size) > 0 for name, group in graph.groups.items()}
    graph.cost(masks)
    assert graph.frozen and graph.shares
    easypruner.prune(model, masks, graph=graph)
    result = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return result


@pytest.mark.slow
def test_memory_grows_at_most_linearly_with_depth() -> None:
    for make, size, depth in ((make_chain, (4, 2, 2), 120), (make_transformer, (3, 16, 16), 6)):
        peak(make(2), *size)  # imports and caches
        small = peak(make(depth), *size)
        assert peak(make(4 * depth), *size) < _EXCESS * 4 * small
