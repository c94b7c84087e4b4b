"""The choice of prunable channels: ignored modules, and what attention loses."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import easypruner
from easypruner.errors import ConfigError
from easypruner.testing import example_inputs, randomized_network
from easypruner.testing.networks import Residual


@pytest.mark.parametrize('entry', ['branch.0.0', 'branch.0', 'branch.0.*', '*.0.0'])
def test_channels_of_ignored_modules_stay(entry: str) -> None:
    graph = easypruner.trace(Residual(), example_inputs(), ignore=[entry])
    assert set(graph.groups) == {'stem.0'}
    (reason,) = {f.reason for f in graph.frozen if (f.param, f.dim) == ('branch.0.0.weight', 0)}
    assert reason == f'ignored, as {entry!r} says'


def test_an_ignored_module_may_still_read_fewer_channels() -> None:
    model = randomized_network(Residual)
    graph = easypruner.trace(model, example_inputs(), ignore='branch.0.0')
    easypruner.prune(model, {'stem.0': torch.arange(8) < 3}, graph=graph)
    assert tuple(model.branch[0][0].weight.shape) == (6, 3, 3, 3)


@pytest.mark.parametrize('entry', ['Conv2d', nn.Conv2d])
def test_modules_are_ignored_by_type(entry: str | type[nn.Module]) -> None:
    assert not easypruner.trace(Residual(), example_inputs(), ignore=[entry]).groups


def test_an_entry_that_fits_nothing_is_an_error_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match=r"did you mean 'branch\.0\.0'"):
        easypruner.trace(Residual(), example_inputs(), ignore=['branch.0.00'])
    with pytest.raises(ConfigError, match='Transformer'):
        easypruner.trace(Residual(), example_inputs(), ignore=[nn.Transformer])
    with pytest.raises(ConfigError, match='expected the path'):
        easypruner.trace(Residual(), example_inputs(), ignore=[3])  # type: ignore[list-item]


def test_an_unknown_way_to_prune_attention_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'head' of trace is not known; did you mean 'heads'"):
        easypruner.trace(Residual(), example_inputs(), attention='head')  # type: ignore[arg-type]


class Attention(nn.Module):
    """Fused queries, keys and values; the width of a head comes from the input's own."""

    def __init__(self, width: int = 24, heads: int = 4, fused: bool = False) -> None:
        super().__init__()
        self.embed, self.norm = nn.Linear(3, width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.head = nn.Linear(width, 5)
        self.heads, self.fused = heads, fused

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x.flatten(2).transpose(1, 2))
        n, length, width = x.shape
        q, k, v = (
            self.qkv(self.norm(x))
            .reshape(n, length, 3, self.heads, width // self.heads)
            .permute(2, 0, 3, 1, 4)
        )
        if self.fused:
            y = nn.functional.scaled_dot_product_attention(q, k, v)
        else:
            y = (q @ k.transpose(-2, -1)).softmax(-1) @ v
        y = y.transpose(1, 2).reshape(n, length, width)
        return self.head((x + self.proj(y)).mean(1))


@pytest.mark.parametrize('fused', [False, True])
@pytest.mark.parametrize(('attention', 'units'), [('width', 6), ('heads', 4)])
def test_attention_loses_the_chosen_units(attention: str, units: int, fused: bool) -> None:
    model = randomized_network(lambda: Attention(fused=fused))
    graph = easypruner.trace(model, example_inputs(), attention=attention)  # type: ignore[arg-type]
    # The stream's width is divided by the number of heads, so both shrink together.
    assert [group.size for group in graph.groups.values()] == [units]
    name = next(iter(graph.groups))
    macs = graph.cost({name: torch.arange(units) < 2}).macs
    easypruner.prune(model, {name: torch.arange(units) < 2}, graph=graph)
    assert model(example_inputs()).shape == (2, 5)
    assert model.heads == (2 if attention == 'heads' else 4)
    assert model.qkv.weight.shape == ((24, 8) if attention == 'width' else (36, 12))
    assert easypruner.trace(model, example_inputs()).cost().macs == macs


@pytest.mark.parametrize('attention', ['width', 'heads'])
def test_more_heads_than_width_change_nothing_of_that(attention: str) -> None:
    graph = easypruner.trace(
        Attention(width=24, heads=8),
        example_inputs(),
        attention=attention,  # type: ignore[arg-type]
    )
    assert [group.size for group in graph.groups.values()] == [3 if attention == 'width' else 8]


def test_invalid_limits_are_refused() -> None:
    with pytest.raises(ConfigError, match=r'limits=5 of trace; expected easypruner\.Limits'):
        easypruner.trace(Residual(), example_inputs(), limits=5)
