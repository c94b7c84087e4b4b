"""Pruned architectures of several libraries in ONNX Runtime compute what they compute in torch."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch

import easypruner
from tests.helpers.benchmarks import BENCHMARKS

pytest.importorskip('onnxruntime')
pytest.importorskip('onnxscript')


def timm_network(name: str, **more: Any) -> tuple[Any, Any]:
    timm = pytest.importorskip('timm')
    return timm.create_model(name, **more).eval(), torch.rand(1, 3, 32, 32)


def text_network() -> tuple[Any, Any]:
    """Return a network that takes a dict and returns a dataclass, with a mask for attention."""
    transformers = pytest.importorskip('transformers')
    config = transformers.BertConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        vocab_size=50,
    )
    tokens = torch.randint(0, 50, (2, 7), generator=torch.Generator().manual_seed(0))
    mask = (torch.arange(7) < torch.tensor([[7], [4]])).long()
    network = transformers.BertForSequenceClassification(config).eval()
    return network, {'input_ids': tokens, 'attention_mask': mask}


NETWORKS = {
    'squeeze and excitation': lambda: timm_network('test_efficientnet'),
    'attention': lambda: timm_network('test_vit', img_size=32),
    'text': text_network,
}
SLOW = ('attention', 'text')


@pytest.mark.parametrize(
    'name',
    [pytest.param(n, marks=[pytest.mark.slow] if n in SLOW else []) for n in NETWORKS],
)
def test_a_small_network(name: str, tmp_path: Path) -> None:
    network, inputs = NETWORKS[name]()
    pruned = easypruner.slim(
        network, inputs, budget=dict(type='Ratio', keep=0.5), verify=False
    ).model
    (file,) = easypruner.export(pruned, inputs, tmp_path / 'e').files
    assert file.error <= 1e-4 and file.dynamic_batch and not file.notes


SAMPLE = [
    'torchvision resnext50_32x4d',
    'torchvision shufflenet_v2_x0_5',
    'torchvision swin_t',
    'torchvision deeplabv3_mobilenet_v3_large',
    'mmpretrain resnet18_8xb16_cifar10',
    'mmpretrain mobilevit-xxsmall_3rdparty_in1k',
    'timm ghostnet_050',
    'timm levit_128s',
    'transformers SegformerForImageClassification',
    'transformers GPT2ForSequenceClassification',
]


@pytest.mark.slow
@pytest.mark.parametrize('model', SAMPLE)
def test_a_network_of_the_page(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    source, name = model.split()
    pytest.importorskip(source)
    entry = importlib.import_module('models').Entry(source, name)
    found = importlib.import_module('exports').export_pruned(entry)
    assert found.reason == '' and found.error <= 1e-4 and found.dynamic_batch
    assert found.params < 0.8
