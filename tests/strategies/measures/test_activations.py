"""Activations: each unit's channels are collected where they are read, by any reader."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

import easypruner
from easypruner import Context
from easypruner.errors import ConfigError, EasyPrunerError
from easypruner.graph import ChannelGraph
from easypruner.strategies.measures.activations import (
    collect,
    mean_at_probes,
    producer_probes,
    reader_probes,
)
from easypruner.strategies.measures.compensation import mean_compensation
from easypruner.testing import example_inputs, randomized_network, tiny_context
from easypruner.testing.networks import Dense, Depthwise, Flattened, Grouped, Plain, Residual
from tests.helpers.batches import shuffled_batches
from tests.helpers.networks import NETWORKS, Shared, Volume, traced_network


def inputs_of(context: Context) -> list[Tensor]:
    return [batch[0] for batch in context.batches()]


def mean_of(traced_network: nn.Module, context: Context, batches: int = 9) -> dict[str, Tensor]:
    graph = easypruner.trace(traced_network, example_inputs())
    return collect(graph, context, batches, 'Me', lambda maps: maps)


def by_hand(
    context: Context, read: Callable[[Tensor], Tensor], channels: list[list[int]], batches: int = 9
) -> Tensor:
    """Return the mean of each unit's channels in dimension 1, in loops."""
    rows = []
    for unit in channels:
        values: list[float] = []
        for images in inputs_of(context)[:batches]:
            seen = read(images)
            for sample in range(seen.shape[0]):
                for channel in unit:
                    values += seen[sample, channel].flatten().tolist()
        rows.append(sum(values) / len(values))
    return torch.tensor(rows, dtype=torch.float64)


def single(size: int) -> list[list[int]]:
    return [[channel] for channel in range(size)]


@torch.no_grad()
@pytest.mark.parametrize('batches', [1, 9])
def test_before_a_convolution_and_behind_a_pooling(batches: int) -> None:
    model, context = randomized_network(Plain), tiny_context()
    actual = mean_of(model, context, batches)
    first = by_hand(context, model.body[0], single(8), batches)
    second = by_hand(context, lambda x: model.body(x).flatten(1), single(12), batches)
    torch.testing.assert_close(actual['body.0.0'][0], first, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(actual['body.1.0'][0], second, rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_a_small_batch_counts_by_its_samples() -> None:
    model, context = randomized_network(Plain), tiny_context()
    images = [inputs_of(context)[0], inputs_of(context)[1][:2]]
    uneven = Context(batches=lambda: [(x, None) for x in images], forward=context.forward)
    expected = by_hand(uneven, model.body[0], single(8))
    torch.testing.assert_close(
        mean_of(model, uneven)['body.0.0'][0], expected, rtol=1e-5, atol=1e-6
    )


@torch.no_grad()
def test_passes_draw_the_same_and_restore_the_random_state() -> None:
    model, context = randomized_network(Plain), shuffled_batches(tiny_context())
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    first = mean_of(model, context)
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(mean_of(model, context)['body.0.0'], first['body.0.0'])


@torch.no_grad()
def test_each_reader_of_a_group_is_a_layer() -> None:
    model, context = randomized_network(Residual), tiny_context()
    actual = mean_of(model, context)['stem.0']

    def added(x: Tensor) -> Tensor:
        x = model.stem(x)
        return torch.relu(x + model.branch(x)).mean((2, 3))

    expected = [by_hand(context, read, single(8)) for read in (model.stem, added)]
    torch.testing.assert_close(actual, torch.stack(expected), rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_readers_of_concatenated_channels_find_each_group_at_its_offset() -> None:
    model, context = randomized_network(Dense), tiny_context()
    actual = mean_of(model, context)['b.0']

    def both(x: Tensor) -> Tensor:
        x = torch.cat([x, model.a(x)], dim=1)
        return torch.cat([x, model.b(x)], dim=1)

    def all_three(x: Tensor) -> Tensor:
        x = both(x)
        return torch.cat([x, model.c(x)], dim=1).mean((2, 3))

    units = [[channel] for channel in range(7, 13)]
    expected = [by_hand(context, read, units) for read in (both, all_three)]
    torch.testing.assert_close(actual, torch.stack(expected), rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_grouped_convolutions_read_a_position_of_every_group() -> None:
    model, context = randomized_network(Grouped), tiny_context()
    actual = mean_of(model, context)
    stem = by_hand(context, model.stem, [[j, j + 4, j + 8] for j in range(4)])
    grouped = by_hand(
        context, lambda x: model.grouped(model.stem(x)), [[j, j + 6, j + 12] for j in range(6)]
    )
    up = by_hand(
        context,
        lambda x: model.up(model.grouped(model.stem(x))).mean((2, 3)),
        [[j, j + 4, j + 8] for j in range(4)],
    )
    for name, expected in (('stem.0', stem), ('grouped.0', grouped), ('up', up)):
        torch.testing.assert_close(actual[name][0], expected, rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_units_of_several_channels_and_flattened_maps() -> None:
    model, context = randomized_network(Depthwise), tiny_context()
    actual = mean_of(model, context)['expand.0']
    expected = by_hand(
        context,
        lambda x: model.multiplied(model.depthwise(model.expand(x))),
        [[2 * j, 2 * j + 1] for j in range(8)],
    )
    torch.testing.assert_close(actual[0], expected, rtol=1e-5, atol=1e-6)
    model = randomized_network(Flattened)
    actual = mean_of(model, context)['body.0.0']
    expected = by_hand(context, lambda x: model.body[1](model.body[0](x)), single(6))
    torch.testing.assert_close(actual[0], expected, rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_a_layer_that_is_called_twice_counts_twice() -> None:
    model, context = randomized_network(Shared), tiny_context()
    actual = mean_of(model, context)['stem.0'][0]
    once = by_hand(context, model.stem, single(8))
    again = by_hand(context, lambda x: model.twice(model.stem(x)), single(8))
    torch.testing.assert_close(actual, (once + again) / 2, rtol=1e-5, atol=1e-6)


def test_both_layers_of_a_shared_weight_are_seen() -> None:
    graph = traced_network(Shared)
    paths = {probe.path for probe in reader_probes(graph)}
    assert {'first', 'second', 'twice.0', 'head'} <= paths


@torch.no_grad()
def test_volumes_and_layers_without_a_norm() -> None:
    model, context = randomized_network(Volume), tiny_context()
    actual = mean_of(model, context)

    def first(x: Tensor) -> Tensor:
        x = model.slope(model.first(x[:, :, None].expand(-1, -1, 4, -1, -1)))
        return nn.functional.interpolate(nn.functional.pad(x, (1, 1, 1, 1)), scale_factor=2)

    expected = by_hand(context, first, single(6))
    torch.testing.assert_close(actual['first'][0], expected, rtol=1e-5, atol=1e-6)


class Rows(nn.Module):
    """Sequences: a convolution over them, unbatched, and tokens before linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv1d(3, 6, 3), nn.Conv1d(6, 5, 1)
        self.tokens, self.head = nn.Linear(5, 7), nn.Linear(7, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.stack([self.second(input=self.first(row).relu()) for row in x.flatten(2)])
        return self.head(self.tokens(x.transpose(1, 2)).relu().mean(1))


@torch.no_grad()
def test_sequences_unbatched_tokens_and_arguments_by_name() -> None:
    torch.manual_seed(0)
    model, context = Rows().eval(), tiny_context()
    actual = mean_of(model, context)

    def first(x: Tensor) -> Tensor:
        return model.first(x.flatten(2)).relu()

    torch.testing.assert_close(
        actual['first'][0], by_hand(context, first, single(6)), rtol=1e-5, atol=1e-6
    )
    expected = by_hand(context, lambda x: model.second(first(x)), single(5))
    torch.testing.assert_close(actual['second'][0], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('build', NETWORKS)
def test_the_layout_in_memory_does_not_matter(build: type[nn.Module]) -> None:
    model, context = randomized_network(build), tiny_context()
    images = inputs_of(context)
    packed = [(x.to(memory_format=torch.channels_last), None) for x in images]
    plain = mean_of(model, context)
    other = Context(batches=lambda: packed, forward=context.forward)
    actual = mean_of(model, other)
    assert set(actual) == set(plain) == set(easypruner.trace(model, example_inputs()).groups)
    for name, values in plain.items():
        torch.testing.assert_close(actual[name], values, rtol=1e-4, atol=1e-5)


def test_a_weight_that_is_computed() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 6, 1), nn.ReLU(), weight_norm(nn.Conv2d(6, 4, 1)), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(4, 5),
    ).eval()  # fmt: skip
    context = tiny_context()
    actual = mean_of(model, context)
    with torch.no_grad():
        expected = by_hand(context, model[:2], single(6))
    torch.testing.assert_close(actual['0'][0], expected, rtol=1e-5, atol=1e-6)


class Functional(nn.Module):
    """A layer whose weight is used without calling it."""

    def __init__(self, both: bool) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 4, 1)
        self.head, self.both = nn.Linear(4, 5), both

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.conv2d(self.first(x), self.second.weight, self.second.bias).mean((2, 3))
        if self.both:
            return nn.functional.linear(x, self.head.weight, self.head.bias)
        return self.head(x)


def test_channels_that_no_module_reads_are_left_out_or_reported() -> None:
    assert set(mean_of(Functional(both=False).eval(), tiny_context())) == {'second'}
    with pytest.raises(EasyPrunerError, match='use a source that reads weights, such as L1Norm'):
        mean_of(Functional(both=True).eval(), tiny_context())


def test_producers_are_norms_or_else_the_layers_that_produce_the_channels() -> None:
    model, context = randomized_network(Depthwise), tiny_context()
    graph = easypruner.trace(model, example_inputs())
    paths = {(probe.group, probe.path) for probe in producer_probes(graph)}
    assert paths == {
        ('expand.0', 'expand.1'), ('expand.0', 'depthwise.1'), ('expand.0', 'multiplied.1'),
        ('project', 'project'),
    }  # fmt: skip
    seen = {
        s.path: v
        for s, v in mean_at_probes(graph, context, 9, 'Me', lambda m: m, producer_probes(graph))
    }
    with torch.no_grad():
        normed = by_hand(context, model.expand[:2], single(8))
        up = randomized_network(Grouped)
        graph = easypruner.trace(up, example_inputs())
        made = {
            s.path: v
            for s, v in mean_at_probes(graph, context, 9, 'Me', lambda m: m, producer_probes(graph))
        }
        grown = by_hand(
            context, lambda x: up.up(up.grouped(up.stem(x))), [[j, j + 4, j + 8] for j in range(4)]
        )
    torch.testing.assert_close(seen['expand.1'], normed, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(made['up'], grown, rtol=1e-5, atol=1e-6)


def test_nan_activations_name_group_and_layer() -> None:
    model = randomized_network(Plain)
    with torch.no_grad():
        model.body[1][1].bias[3] = float('inf')
    with pytest.raises(EasyPrunerError, match=r"Me got .* group 'body\.1\.0' .* 'head'"):
        mean_of(model, tiny_context())
    assert not any(m._forward_pre_hooks for m in model.modules())


def test_batches_and_passes_are_needed() -> None:
    with pytest.raises(EasyPrunerError, match='Me needs batches'):
        mean_of(randomized_network(Plain), tiny_context(batches=0))
    with pytest.raises(ConfigError, match='Me needs forward passes'):
        mean_of(randomized_network(Plain), replace(tiny_context(), forward=None))


class Encoder(nn.Module):
    """A transformer encoder, whose fast path takes padded tokens out of the batch."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor, padding: Tensor) -> Tensor:
        return self.head(self.encoder(x, src_key_padding_mask=padding)[:, 0])


def padded() -> tuple[nn.Module, ChannelGraph, Context]:
    torch.manual_seed(0)
    model = Encoder().eval()
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randn(3, 4, 8, generator=generator)
    padding = torch.tensor([[False] * 4, [False, False, True, True], [False, False, False, True]])
    graph = easypruner.trace(model, (tokens, padding))
    forward = torch.no_grad()(lambda model, batch: model(*batch))
    return model, graph, Context(batches=lambda: [(tokens, padding)], forward=forward)


@torch.no_grad()
def test_a_transformer_encoder_whose_tokens_are_padded() -> None:
    model, graph, context = padded()
    actual = collect(graph, context, 1, 'Me', lambda maps: maps)
    (tokens, padding) = context.batches()[0]
    x = tokens
    for number, layer in enumerate(model.encoder.layers):
        attended = layer.self_attn(x, x, x, key_padding_mask=padding, need_weights=False)[0]
        x = layer.norm1(x + attended)
        hidden = layer.linear1(x).relu()
        x = layer.norm2(x + layer.linear2(hidden))
        expected = hidden.double().mean((0, 1))
        group = actual[f'encoder.layers.{number}.linear1'][0]
        torch.testing.assert_close(group, expected, rtol=1e-4, atol=1e-6)


def test_a_padded_encoder_is_compensated() -> None:
    model, graph, context = padded()
    inputs = context.batches()[0]
    with torch.no_grad():
        model.encoder.layers[1].linear1.weight[:6] = 0
    expected = model(*inputs)
    masks = {'encoder.layers.1.linear1': torch.arange(12) >= 6}
    mean_compensation(graph, masks, context, 1, 'Me').apply()
    easypruner.prune(model, masks, graph=graph)
    torch.testing.assert_close(model(*inputs), expected)


def test_where_no_channel_is_prunable_nothing_is_collected() -> None:
    graph = easypruner.trace(nn.Sequential(nn.Flatten(), nn.Linear(192, 5)), example_inputs())
    assert collect(graph, tiny_context(), 1, 'Me', lambda maps: maps) == {}
