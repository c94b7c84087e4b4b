"""The layer handlers for PEFT: a LoRA of lower rank is merged, saved and loaded by PEFT itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import easypruner

peft: Any = pytest.importorskip('peft')
pytestmark = pytest.mark.filterwarnings('ignore')


class Net(nn.Module):
    """Two linear layers and a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 12, 3)
        self.up = nn.Linear(12, 16)
        self.down = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.up(self.conv(x).mean((2, 3))).relu())


def _adapted(use_rslora: bool = False) -> Any:
    torch.manual_seed(0)
    config = peft.LoraConfig(
        r=8, lora_alpha=12, target_modules=['conv', 'up', 'down'], use_rslora=use_rslora
    )
    model = peft.get_peft_model(Net(), config)
    for name, parameter in model.named_parameters():
        if 'lora_B' in name:
            nn.init.normal_(parameter, std=0.2)
    return model.eval()


@pytest.mark.parametrize('use_rslora', [False, True])
def test_ranks_are_pruned_merged_and_loaded(tmp_path: Path, use_rslora: bool) -> None:
    model, x = _adapted(use_rslora), torch.randn(2, 3, 5, 5)
    graph = easypruner.trace(model, x, ignore='*.base_layer')
    ranks = {name: group for name, group in graph.groups.items() if 'lora_A' in name}
    assert sorted(group.size for group in ranks.values()) == [8, 8, 8]
    masks = {name: torch.arange(8) < 8 - number for number, name in enumerate(ranks, start=1)}
    assert easypruner.verify(model, masks, x, graph=graph).passed
    easypruner.prune(model, masks, graph=graph)
    layers = [model.base_model.model.get_submodule(name) for name in ('conv', 'up', 'down')]
    assert [layer.r['default'] for layer in layers] == [7, 6, 5]
    expected = model(x)
    assert [layer.scaling['default'] for layer in layers] == [layers[0].scaling['default']] * 3
    layers[0].set_scale('default', 1)
    torch.testing.assert_close(model(x), expected)
    model.save_pretrained(tmp_path)
    torch.manual_seed(0)
    torch.testing.assert_close(peft.PeftModel.from_pretrained(Net(), tmp_path)(x), expected)
    torch.testing.assert_close(model.merge_and_unload()(x), expected)


def test_the_widths_of_an_adapted_layer_follow() -> None:
    model, x = _adapted(), torch.randn(2, 3, 5, 5)
    slimmed = easypruner.slim(model, x, params=0.6, limits={'round_to': 1})
    for layer in slimmed.model.modules():
        if isinstance(layer, peft.tuners.lora.LoraLayer):
            base = layer.base_layer.weight.shape
            assert (layer.out_features, layer.in_features) == tuple(base[:2])
            assert layer.r['default'] == layer.lora_A['default'].weight.shape[0]
    expected = slimmed.model(x)
    torch.testing.assert_close(slimmed.model.merge_and_unload()(x), expected)


def test_a_trace_leaves_the_configs_as_they_were() -> None:
    model = _adapted()
    easypruner.trace(model, torch.randn(2, 3, 5, 5))
    assert not model.peft_config['default'].rank_pattern
    assert model.base_model.model.up.lora_alpha == {'default': 12}
