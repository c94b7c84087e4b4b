"""Large weights, of which two dimensions are cut at once, keep the entries and the layout."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import easypruner


@pytest.mark.parametrize('layout', [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize('transposed', [False, True])
@pytest.mark.parametrize('optimized', [False, True])
def test_a_large_weight_keeps_the_entries_of_both_dimensions(
    layout: torch.memory_format, transposed: bool, optimized: bool
) -> None:
    kind = nn.ConvTranspose2d if transposed else nn.Conv2d
    model = nn.Sequential(nn.Conv2d(3, 144, 1), kind(144, 160, 3), nn.Conv2d(160, 2, 1))
    model.to(memory_format=layout)
    weight, images = model[1].weight, torch.rand(1, 3, 8, 8)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(images).sum().backward()
    optimizer.step()
    before = [weight.detach(), weight.grad, optimizer.state[weight]['momentum_buffer']]
    generator = torch.Generator().manual_seed(1)
    graph = easypruner.trace(model, images)
    masks = {n: torch.rand(g.size, generator=generator) < 0.6 for n, g in graph.groups.items()}
    assert weight.numel() > 2**17 and len(masks) == 2
    easypruner.prune(model, masks, graph=graph, optimizer=optimizer if optimized else ())
    rows, columns = masks['1'], masks['0']
    if transposed:
        rows, columns = columns, rows
    after = [weight.detach(), weight.grad, optimizer.state[weight]['momentum_buffer']]
    for whole, cut in zip(before, after if optimized else after[:2], strict=False):
        assert torch.equal(cut, whole[rows][:, columns])
        assert cut.is_contiguous(memory_format=layout)
