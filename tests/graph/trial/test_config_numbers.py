"""Numbers of a config that a forward pass reads: each module gets a config of its own for them."""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

import easypruner
from easypruner import Masks
from easypruner.graph import ArchitectureRecord
from easypruner.graph.recording.config_numbers import attributes_of

WIDTH, DIM = 24, 5


class Config:
    """As those of Hugging Face."""

    model_type = 'packed'

    def __init__(self) -> None:
        self.heads, self.shared, self.hidden = 6, 3, WIDTH

    def to_json_string(self) -> str:
        return '{}'


class Packed(nn.Module):
    """Grouped-query attention on one projection, as Phi-3 has it."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.qkv = nn.Linear(WIDTH, (config.heads + 2 * config.shared) * DIM)
        self.out = nn.Linear(config.heads * DIM, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        packed = self.qkv(x)
        queries = self.config.heads * DIM
        keys = queries + self.config.shared * DIM
        q, k, v = packed[..., :queries], packed[..., queries:keys], packed[..., keys:]
        q, k, v = (t.view(*t.shape[:2], -1, DIM).transpose(1, 2) for t in (q, k, v))
        mixed = scaled_dot_product_attention(q, k, v, enable_gqa=True)
        return x + self.out(mixed.transpose(1, 2).flatten(2))


def build(config: Config | None = None) -> nn.Sequential:
    torch.manual_seed(0)
    config = config or Config()
    return nn.Sequential(Packed(config), Packed(config), nn.Linear(WIDTH, 3)).eval()


@pytest.mark.skipif(torch.__version__ < '2.5', reason='enable_gqa is there since torch 2.5')
def test_layers_that_share_a_config_lose_different_numbers_of_heads() -> None:
    config, x = Config(), torch.randn(2, 7, WIDTH)
    model, other = build(config), build(config)
    graph = easypruner.trace(model, x, attention='heads', ignore='2')
    assert {name: graph.groups[name].size for name in ('0.qkv', '1.qkv')} == {
        '0.qkv': 3,
        '1.qkv': 3,
    }
    masks = Masks(
        {'0.qkv': torch.tensor([True, False, True]), '1.qkv': torch.tensor([False, True, False])}
    )
    assert easypruner.verify(model, masks, x, graph=graph).error < 1e-6
    assert {'0.config.heads: 6 -> 4', '1.config.shared: 3 -> 1'} <= {
        str(number) for number in graph.repairs(masks)
    }
    record = easypruner.prune(model, masks, graph=graph)
    numbers = [(layer.config.heads, layer.config.shared) for layer in (model[0], model[1])]
    assert numbers == [(4, 2), (2, 1)]
    again = easypruner.load_pruned(build, model.state_dict(), record)
    assert torch.equal(again(x), model(x))
    assert (config.heads, config.shared) == (6, 3) and other(x).shape == (2, 7, 3)


@dataclass
class Options:
    width: int = 12
    inner: int = 16
    gate: Any = nn.Sigmoid


@dataclass(frozen=True)
class Fixed:
    width: int = 12
    inner: int = 16
    gate: Any = nn.Sigmoid


class Plain:
    def __init__(self) -> None:
        self.width, self.inner, self.gate = 12, 16, nn.Sigmoid


class Sizes(Enum):
    """Shared by all code that names it."""

    ONLY = 16


class Gated(nn.Module):
    """A block that splits by a number of the options that all blocks share."""

    def __init__(self, options: Any) -> None:
        super().__init__()
        self.options, self.gate = options, options.gate()
        self.enter = nn.Linear(options.width, 2 * options.inner)
        self.leave = nn.Linear(options.inner, options.width)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.enter(x).split([self.options.inner, self.options.inner], -1)
        return x + self.leave(a * self.gate(b))


class Items(dict[str, Any]):
    """A dict whose items are attributes as well, each kept twice."""

    def __setitem__(self, name: str, value: Any) -> None:
        super().__setitem__(name, value)
        vars(self)[name] = value


def fill(items: Items, **values: Any) -> Items:
    for name, value in values.items():
        items[name] = value
    return items


def build_gated(options: Any) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 12), Gated(options), Gated(options), nn.Linear(12, 3)).eval()


@pytest.mark.parametrize(
    'make',
    [
        Options,
        Fixed,
        Plain,
        lambda: argparse.Namespace(width=12, inner=16, gate=nn.Sigmoid),
        lambda: fill(Items(), width=12, inner=16, gate=nn.Sigmoid),
    ],
)
def test_blocks_follow_numbers_of_options_each_for_itself(make: Callable[[], Any]) -> None:
    options, x = make(), torch.rand(2, 5)
    model = build_gated(options)
    graph = easypruner.trace(model, x)
    assert [graph.groups[f'{n}.enter'].size for n in (1, 2)] == [16, 16]
    masks = Masks({'1.enter': torch.arange(16) < 7, '2.enter': torch.arange(16) > 3})
    assert easypruner.verify(model, masks, x, graph=graph).error < 1e-12
    record = easypruner.prune(model, masks, graph=graph)
    assert [model[n].options.inner for n in (1, 2)] == [7, 12] and options.inner == 16
    again = easypruner.load_pruned(lambda: build_gated(make()), model.state_dict(), record)
    assert torch.equal(again(x), model(x))


class ByKeys(nn.Module):
    """Attention that takes the number of its heads and their width from a dict."""

    def __init__(self, sizes: dict[str, Any]) -> None:
        super().__init__()
        self.sizes = sizes
        self.qkv = nn.Linear(WIDTH, 3 * sizes['heads'] * sizes['dim'])
        self.out = nn.Linear(sizes['heads'] * sizes['dim'], WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        n, length, _ = x.shape
        sizes = self.sizes
        packed = self.qkv(x).view(n, length, 3, sizes['heads'], sizes['dim'])
        mixed = scaled_dot_product_attention(*packed.permute(2, 0, 3, 1, 4))
        return x + self.out(mixed.transpose(1, 2).flatten(2))


class ByLayers(nn.Module):
    """Attention whose heads are split by a layer that is given a number under a name."""

    def __init__(self, split: dict[str, int]) -> None:
        super().__init__()
        layers = pytest.importorskip('einops.layers.torch')
        self.query, self.key_value = nn.Linear(WIDTH, 20), nn.Linear(WIDTH, 40)
        self.split = layers.Rearrange('n l (h d) -> n h l d', **split)
        self.merge = layers.Rearrange('n h l d -> n l (h d)')
        self.out = nn.Linear(20, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.query(x), *self.key_value(x).chunk(2, -1)
        return x + self.out(self.merge(scaled_dot_product_attention(*map(self.split, parts))))


SHARED = {'heads': 4, 'dim': DIM, 'name': 'small'}


@pytest.mark.parametrize('attention', ['width', 'heads'])
@pytest.mark.parametrize(
    'block',
    [
        lambda: ByKeys(SHARED),
        lambda: ByLayers({'h': 4}),
        lambda: ByLayers({'d': DIM}),
    ],
    ids=['dict', 'heads', 'width'],
)
def test_attentions_follow_numbers_under_names(
    block: Callable[[], nn.Module], attention: Any
) -> None:
    def build_blocks() -> nn.Sequential:
        torch.manual_seed(0)
        return nn.Sequential(block(), block()).eval()

    x = torch.rand(2, 3, WIDTH)
    model = build_blocks()
    graph = easypruner.trace(model, x, attention=attention)
    size = {'width': DIM, 'heads': 4}[attention]
    assert all(group.size == size for group in graph.groups.values())
    assert {name[0] for name in graph.groups} == {'0', '1'}
    keep = {'0': 1, '1': 3}
    masks = Masks({n: torch.arange(size) >= size - keep[n[0]] for n in graph.groups})
    assert easypruner.verify(model, masks, x, graph=graph).error < 1e-12
    record = easypruner.prune(model, masks, graph=graph)
    again = easypruner.load_pruned(build_blocks, model.state_dict(), record)
    assert torch.equal(again(x), model(x))
    assert torch.equal(copy.deepcopy(model)(x), model(x))
    assert {'heads': 4, 'dim': DIM, 'name': 'small'} == SHARED


class Counts(NamedTuple):
    heads: int = 4
    dim: int = DIM


class Split(nn.Module):
    """Attention that splits heads by numbers that the module holds in some form."""

    heads, dim = 4, DIM

    def __init__(self, sizes: Any, read: Callable[[Any], tuple[int, int]]) -> None:
        super().__init__()
        self.sizes, self.read = sizes, read
        self.qkv, self.out = nn.Linear(WIDTH, 60), nn.Linear(20, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        heads, dim = self.read(self)
        packed = self.qkv(x).view(*x.shape[:2], 3, heads, dim).permute(2, 0, 3, 1, 4)
        return x + self.out(scaled_dot_product_attention(*packed).transpose(1, 2).flatten(2))


FORMS: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    'class': (lambda: None, lambda own: (own.heads, own.dim)),
    'numpy': (lambda: np.array([4, DIM])[0], lambda own: (own.sizes, own.dim)),
    'size': (lambda: torch.Size([4, DIM]), lambda own: own.sizes),
    'named': (Counts, lambda own: (own.sizes.heads, own.sizes.dim)),
    'nested list': (lambda: [[4, DIM], 'x'], lambda own: own.sizes[0]),
    'nested dict': (
        lambda: {'in': {'heads': 4, 2: DIM}},
        lambda own: (own.sizes['in']['heads'], own.sizes['in'][2]),
    ),
    'namespace': (
        lambda: SimpleNamespace(own=SimpleNamespace(heads=4, dim=DIM)),
        lambda own: (own.sizes.own.heads, own.sizes.own.dim),
    ),
    'object': (
        lambda: argparse.Namespace(own=Counts(), other='x'),
        lambda own: (own.sizes.own.heads, own.sizes.own.dim),
    ),
}


@pytest.mark.parametrize('form', FORMS)
def test_numbers_are_found_in_many_forms(form: str, tmp_path: Path) -> None:
    make, read = FORMS[form]

    def build_split() -> nn.Module:
        torch.manual_seed(0)
        return Split(make(), read).eval()

    x = torch.rand(2, 3, WIDTH)
    for attention, size in (('heads', 4), ('width', DIM)):
        model: Any = build_split()
        before = make()
        graph = easypruner.trace(model, x, attention=attention)
        (name,) = graph.groups
        assert graph.groups[name].size == size
        masks = Masks({name: torch.arange(size) != 1})
        assert easypruner.verify(model, masks, x, graph=graph).error < 1e-12
        easypruner.prune(model, masks, graph=graph).save(tmp_path / 'cut.json')
        record = ArchitectureRecord.load(tmp_path / 'cut.json')
        again = easypruner.load_pruned(build_split, model.state_dict(), record)
        assert torch.equal(again(x), model(x))
        assert type(before) is type(model.sizes) or form == 'numpy'
    assert (Split.heads, Split.dim) == (4, DIM)


def test_a_vocabulary_is_no_config() -> None:
    module = nn.Linear(3, 3)
    module.words = {f'word {number}': number for number in range(1000)}
    assert not any(name.startswith('words.') for name, _ in attributes_of(module))


def test_the_value_of_an_enum_stays_as_other_code_reads_it() -> None:
    class Chunked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.sizes, self.first, self.last = Sizes.ONLY, nn.Linear(5, 16), nn.Linear(16, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.first(x).view(-1, self.sizes.value))

    graph = easypruner.trace(Chunked(), torch.rand(2, 5))
    assert Sizes.ONLY.value == 16 and not graph.groups
