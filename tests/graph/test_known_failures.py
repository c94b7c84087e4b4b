"""Cases in which other tools fail silently: they work here, or are reported.

Each of these was seen to fail without an error in Torch-Pruning 1.6.1.
"""

from __future__ import annotations

import copy

import pytest
import torch
from easypruner_plugins.threshold import Threshold
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

import easypruner
from easypruner.graph import ChannelGraph
from easypruner.testing import example_inputs, randomized_network
from easypruner.testing.networks import Plain, Residual, SqueezeExcite, block
from tests.helpers.networks import Shuffled


class ChunkGate(nn.Module):
    """One half of the channels gates the other, in two blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.layers = block(3, 16), nn.ModuleList([block(16, 64), block(32, 64)])
        self.head = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for layer in self.layers:
            value, gate = layer(x).chunk(2, dim=1)
            x = value * gate.sigmoid()
        return self.head(x.mean((2, 3)))


class SplitBySizes(nn.Module):
    """Channels are split into parts of sizes that the module remembers."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes = (6, 10)
        self.stem, self.small, self.large = block(3, 16), block(6, 8), block(10, 4)
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        small, large = torch.split(self.stem(x), self.sizes, dim=1)
        return self.head(torch.cat([self.small(small), self.large(large)], 1).mean((2, 3)))


class Windows(nn.Module):
    """Attention within windows of two by two positions, its heads cut out by views."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.qkv, self.out = block(3, 12), nn.Linear(12, 48), nn.Linear(16, 12)
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        n, c, h, w = x.shape
        windows = x.view(n, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 3, 5, 1).reshape(-1, 4, c)
        q, k, v = self.qkv(windows).reshape(-1, 4, 3, 2, self.qkv.out_features // 6).unbind(2)
        mixed = functional.scaled_dot_product_attention(*(t.transpose(1, 2) for t in (q, k, v)))
        windows = windows + self.out(mixed.transpose(1, 2).flatten(2))
        x = windows.view(n, h // 2, w // 2, 2, 2, c).permute(0, 5, 1, 3, 2, 4).reshape(n, c, h, w)
        return self.head(x.mean((2, 3)))


def half(graph: ChannelGraph) -> dict[str, Tensor]:
    """Return masks that keep every second unit."""
    return {name: torch.arange(group.size) % 2 == 0 for name, group in graph.groups.items()}


def counted_macs(model: nn.Module) -> int:
    # On the CPU its table lacks the fused attention.
    with FlopCounterMode(display=False) as counter:
        copy.deepcopy(model).to('meta')(example_inputs().to('meta'))
    return counter.get_total_flops() // 2


def test_a_model_without_gradients_is_pruned_and_stays_without() -> None:
    model = randomized_network(Residual).requires_grad_(False)
    graph = easypruner.trace(model, example_inputs())
    easypruner.prune(model, half(graph), graph=graph)
    assert model.stem[0].weight.shape[0] == 4 and model.branch[0][0].weight.shape == (3, 4, 3, 3)
    assert not any(p.requires_grad for p in model.parameters())


def test_a_frozen_stem_is_pruned_and_stays_frozen() -> None:
    model = randomized_network(Residual)
    model.stem.requires_grad_(False)
    graph = easypruner.trace(model, example_inputs())
    easypruner.prune(model, half(graph), graph=graph)
    assert model.stem[0].weight.shape[0] == 4
    learns = {name: p.requires_grad for name, p in model.named_parameters()}
    assert learns == {name: not name.startswith('stem') for name in learns}


def test_a_chunk_gate_with_a_ratio_of_half_keeps_exactly_half() -> None:
    model = randomized_network(ChunkGate)
    graph = easypruner.trace(model, example_inputs())
    masks = half(graph)
    assert easypruner.verify(model, masks, example_inputs()).error < 1e-12
    easypruner.prune(model, masks, graph=graph)
    assert [layer[0].out_channels for layer in model.layers] == [32, 32]
    assert model.layers[1][0].in_channels == 16


@pytest.mark.parametrize('build', [Shuffled, SplitBySizes])
def test_a_shuffle_and_a_split_by_sizes_are_cut_to_the_same_function(
    build: type[nn.Module],
) -> None:
    model = randomized_network(build)
    graph = easypruner.trace(model, example_inputs())
    result = easypruner.verify(model, half(graph), example_inputs())
    assert result.error < 1e-12 and result.removed_units >= 3 and not result.unchecked


def test_attention_in_windows_is_cut() -> None:
    model = randomized_network(Windows)
    graph = easypruner.trace(model, example_inputs())
    masks = half(graph)
    assert easypruner.verify(model, masks, example_inputs()).error < 1e-12
    easypruner.prune(model, masks, graph=graph)
    assert model.stem[0].out_channels == 6 and model.qkv.weight.shape == (24, 6)
    assert model(example_inputs()).shape == (2, 5)


def test_a_group_that_would_lose_all_units_keeps_its_best() -> None:
    model = randomized_network(Plain)
    best = [model.body[i][0].weight[3].clone() for i in range(2)]
    graph = easypruner.trace(model, example_inputs())
    scores = {name: -(torch.arange(group.size) - 3.0).abs() for name, group in graph.groups.items()}
    masks = Threshold(1.0)(scores, graph, easypruner.Context())
    easypruner.prune(model, masks, graph=graph)
    assert torch.equal(model.body[0][0].weight, best[0][None])
    assert torch.equal(model.body[1][0].weight, best[1][None, 3:4])


def test_after_a_cut_the_optimizer_has_every_parameter_and_continues() -> None:
    model = randomized_network(Residual).train()
    optimizer = torch.optim.AdamW(model.parameters(), 0.01)
    model(example_inputs()).square().mean().backward()
    optimizer.step()
    graph = easypruner.trace(model, example_inputs())
    easypruner.prune(model, half(graph), graph=graph, optimizer=optimizer)
    known = {id(p) for group in optimizer.param_groups for p in group['params']}
    assert known == {id(p) for p in model.parameters()}
    for parameter in model.parameters():
        moment = optimizer.state[parameter]['exp_avg']
        assert moment.shape == parameter.shape and moment.abs().max() > 0
    before = copy.deepcopy(model.state_dict())
    optimizer.zero_grad()
    model(example_inputs()).square().mean().backward()
    optimizer.step()
    assert all(not torch.equal(before[name], p) for name, p in model.named_parameters())


@pytest.mark.parametrize('training', [True, False])
def test_the_mode_of_every_module_is_kept(training: bool) -> None:
    model = randomized_network(Residual).train(training)
    model.stem[1].train(not training)
    graph = easypruner.trace(model, example_inputs())
    easypruner.verify(model, half(graph), example_inputs())
    easypruner.prune(model, half(graph), graph=graph)
    modes = {name: module.training for name, module in model.named_modules()}
    assert modes == {name: training != (name == 'stem.1') for name in modes}


@pytest.mark.parametrize('build', [SqueezeExcite, Windows])
def test_multiply_adds_of_gates_and_attention_are_those_that_torch_counts(
    build: type[nn.Module],
) -> None:
    model = randomized_network(build)
    graph = easypruner.trace(model, example_inputs())
    assert graph.cost().macs == counted_macs(model)
    predicted = graph.cost(half(graph)).macs
    easypruner.prune(model, half(graph), graph=graph)
    assert predicted == counted_macs(model) < graph.cost().macs + 1
