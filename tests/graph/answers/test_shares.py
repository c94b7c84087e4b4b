"""Shares by kind of structure: what can go, what it costs, and what holds the rest."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import easypruner
from easypruner.graph import ChannelGraph
from easypruner.testing import example_inputs, random_masks, randomized_network
from easypruner.testing.networks import Flattened, Plain, Residual, SqueezeExcite
from tests.graph.coupling.rules.test_experts import EXPERTS, INNER, Experts, needs_grouped
from tests.helpers.networks import NETWORKS, traced_network

HEADS, WIDTH = 4, 8


class Block(nn.Module):
    """A transformer block with rotated queries and keys, and two heads of keys and values."""

    def __init__(self) -> None:
        super().__init__()
        size = HEADS * WIDTH
        self.width, self.repeats = WIDTH, HEADS // 2
        self.embed, self.head = nn.Linear(5, 24), nn.Linear(24, 3)
        self.position = nn.Parameter(torch.randn(6, 24))
        self.q, self.k, self.v = (nn.Linear(24, n) for n in (size, 2 * WIDTH, 2 * WIDTH))
        self.o, self.up, self.down = nn.Linear(size, 24), nn.Linear(24, 40), nn.Linear(40, 24)
        self.register_buffer('angle', torch.randn(6, WIDTH))

    def rotate(self, x: Tensor) -> Tensor:
        a, b = x.chunk(2, -1)
        return x * self.angle.cos() + torch.cat([-b, a], -1) * self.angle.sin()

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x) + self.position
        q, k, v = (
            layer(x).view(*x.shape[:2], -1, self.width).transpose(1, 2)
            for layer in (self.q, self.k, self.v)
        )
        y = functional.scaled_dot_product_attention(
            self.rotate(q),
            self.rotate(k).repeat_interleave(self.repeats, 1),
            v.repeat_interleave(self.repeats, 1),
        )
        x = x + self.o(y.transpose(1, 2).flatten(2))
        return self.head(x + self.down(functional.gelu(self.up(x))))


def trace_block(**options: object) -> ChannelGraph:
    model = randomized_network(Block, torch.randn(2, 6, 5))
    return easypruner.trace(model, torch.randn(2, 6, 5), **options)  # type: ignore[arg-type]


def counts(graph: ChannelGraph) -> dict[str, tuple[int, int]]:
    return {share.kind: (share.prunable, share.units) for share in graph.shares}


@pytest.mark.parametrize('build', NETWORKS)
def test_each_unit_is_in_one_kind(build: type[nn.Module]) -> None:
    graph = traced_network(build)
    sizes = [group.size for group in graph.groups.values() if group.size > 1]
    assert sum(share.prunable for share in graph.shares) == sum(sizes)
    for share in graph.shares:
        assert share.prunable + sum(held.units for held in share.held) == share.units
        assert 0 <= share.prunable_cost.params <= share.cost.params <= graph.cost().params
        assert 0 <= share.prunable_cost.macs <= share.cost.macs <= graph.cost().macs


@pytest.mark.parametrize('build', NETWORKS)
def test_after_a_cut_they_are_those_of_the_network_that_is_left(build: type[nn.Module]) -> None:
    graph = traced_network(build)
    for seed in (0, 1):
        easypruner.prune(graph.model, random_masks(graph, 0.7, seed), graph=graph)
    assert graph.shares == easypruner.trace(graph.model, example_inputs()).shares


def test_the_cost_is_that_of_the_groups_of_the_kind() -> None:
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Flatten(), nn.Linear(24, 7), nn.Linear(7, 2))
    graph = easypruner.trace(model, torch.rand(2, 3, 4, 4))
    shares = {share.kind: share for share in graph.shares}
    costs = graph.group_costs()
    assert shares['convolution'].prunable_cost == shares['convolution'].cost == costs['0']
    assert shares['MLP'].prunable_cost == costs['2']
    (held,) = shares['outputs'].held
    assert (held.units, held.reason) == (2, 'an output of the model (output)')
    assert (held.cost.params, held.cost.macs) == (2 * 7 + 2, 2 * 2 * 7)
    assert shares['outputs'].prunable_cost.params == 0


@pytest.mark.parametrize(
    ('build', 'kinds'),
    [
        (Plain, {'convolution', 'outputs'}),
        (Residual, {'convolution', 'residual stream', 'outputs'}),
        (SqueezeExcite, {'convolution', 'outputs'}),
        (Flattened, {'convolution', 'outputs'}),
    ],
)
def test_kinds_of_convolutional_networks(build: type[nn.Module], kinds: set[str]) -> None:
    found = {share.kind for share in traced_network(build).shares}
    assert found >= kinds and ('residual stream' in kinds) == ('residual stream' in found)


@pytest.mark.parametrize(
    ('attention', 'heads', 'width'),
    [('width', (0, 2), (WIDTH // 2, WIDTH // 2)), ('heads', (2, 2), (0, WIDTH))],
)
def test_heads_and_their_width(
    attention: str, heads: tuple[int, int], width: tuple[int, int]
) -> None:
    graph = trace_block(attention=attention)
    found = counts(graph)
    assert (found['heads'], found['head width']) == (heads, width)
    # Neither a rotation nor a positional embedding makes a stream; MLP and stream are the same.
    assert (found['residual stream'], found['MLP']) == ((24, 24), (40, 40))
    shares = {share.kind: share for share in graph.shares}
    chosen, other = ('head width', 'heads') if attention == 'width' else ('heads', 'head width')
    (held,) = shares[other].held
    assert f'attention={attention!r}' in held.reason
    # Heads and width of heads are of the same weights.
    assert held.cost == shares[chosen].prunable_cost != graph.cost()


def test_heads_that_several_share_stay_for_heads_of_queries() -> None:
    graph = trace_block(attention='query_heads')
    (share,) = [share for share in graph.shares if share.kind == 'heads']
    assert (share.prunable, share.units) == (HEADS // 2, HEADS // 2 + 2)
    assert share.held[0].reason.startswith('a head of keys and values that several')


@needs_grouped
def test_experts_and_their_width() -> None:
    model = randomized_network(lambda: Experts('grouped'), torch.randn(8, 5))
    found = counts(easypruner.trace(model, torch.randn(8, 5)))
    assert found['experts'] == (EXPERTS, EXPERTS)
    assert found['expert width'] == (INNER, INNER)


def test_frozen_entries_have_kinds() -> None:
    frozen = trace_block(ignore=['down']).frozen
    kinds = {(entry.param, entry.dim): entry.kind for entry in frozen}
    assert kinds['down.weight', 0] == kinds['embed.weight', 0] == 'residual stream'
    assert kinds['head.weight', 0] == 'outputs' and kinds['embed.weight', 1] == 'inputs'


def test_a_stream_that_is_ignored_is_held() -> None:
    (share,) = [s for s in trace_block(ignore=['down']).shares if s.kind == 'residual stream']
    assert (share.prunable, share.units) == (0, 24)
    assert share.held[0].reason == "ignored, as 'down' says"
    assert share.prunable_cost.params == 0 < share.cost.params


class Language(nn.Module):
    """A table of tokens that is the last layer as well, a table of positions, and an MLP."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(11, 6), nn.Embedding(5, 6)
        self.up, self.down = nn.Linear(6, 9), nn.Linear(9, 6)

    def forward(self, x: Tensor) -> Tensor:
        y = self.tokens(x) + self.positions(torch.arange(5))
        return (y + self.down(self.up(y).relu())) @ self.tokens.weight.T


def test_a_stream_of_a_table_that_is_the_last_layer_as_well() -> None:
    found = counts(easypruner.trace(Language(), torch.ones(1, 5, dtype=torch.long)))
    assert found == {
        'residual stream': (6, 6),
        'MLP': (9, 9),
        'outputs': (0, 11),
        'other': (0, 5),  # positions
    }


class Ends(nn.Module):
    """Layers add to the input, and to the output."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.a, self.b = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.first(x)
        return self.a(x) + self.b(x)


def test_what_is_added_to_an_input_is_a_stream_and_to_an_output_is_none() -> None:
    found = {share.kind: share for share in easypruner.trace(Ends(), torch.rand(1, 3, 4, 4)).shares}
    assert {kind: (share.prunable, share.units) for kind, share in found.items()} == {
        'residual stream': (0, 3),
        'outputs': (0, 4),
    }
    assert found['residual stream'].held[0].reason == 'an input of the model'


def test_hidden_units_are_recurrent() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.head = nn.LSTM(3, 8, batch_first=True), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.rnn(x)[0][:, -1])

    found = counts(easypruner.trace(Net(), torch.rand(2, 4, 3)))
    assert found == {'recurrent': (8, 8), 'outputs': (0, 2)}
