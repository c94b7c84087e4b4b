"""Numbers of a config that a forward pass reads: each module gets a config of its own for them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

import easypruner
from easypruner import Masks

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
