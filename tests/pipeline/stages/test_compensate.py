"""Prune with compensate: the mean of removed channels is added to the biases of their readers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import Runner
from torch import Tensor, nn

import easypruner
from easypruner import Masks
from easypruner.engine.checkpoint import read_weights
from easypruner.engine.pretrained import load_weights
from easypruner.errors import ConfigError
from easypruner.pipeline.stages import Prune
from tests.helpers.tiny import prune, summary, tiny_config, write_config


def config(**arguments: Any) -> dict[str, Any]:
    source = dict(type='L1Norm', budget=dict(type='Macs', keep=0.5))
    stages = [
        dict(type='Train', name='baseline', epochs=1, row='baseline'),
        dict(type='SelectMask', source=source),
        dict(type='Prune') | arguments,
        dict(type='Report'),
    ]
    content = tiny_config(stages=stages)
    # Images are not changed, so that a pass is the same in any order.
    content['train_dataloader']['dataset']['pipeline'] = [dict(type='PackInputs')]
    return content


def cut_by(folder: Path, **arguments: Any) -> Path:
    assert prune(write_config(folder, config(**arguments)), folder / 'run') == 0
    return folder / 'run'


def full_model(run: Path) -> nn.Module:
    content = config()
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        settings = content['model'] | dict(data_preprocessor=content['data_preprocessor'])
        model: nn.Module = MODELS.build(settings)
    load_weights(model, run / '00_baseline' / 'weights.pth')
    return model.eval()


def features(model: nn.Module) -> Tensor:
    """Return the inputs of the classifier for all training images."""
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        loader = Runner.build_dataloader(config()['train_dataloader'])
    with torch.no_grad():
        images = [model.data_preprocessor(batch, False)['inputs'] for batch in loader]
        return model.extract_feat(torch.cat(images))[-1]


@pytest.fixture(scope='module')
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp('cut')
    return cut_by(folder / 'plain', compensate=None), cut_by(folder / 'mean', batches=3)


def test_the_classifier_s_bias_by_hand(runs: tuple[Path, Path]) -> None:
    model = full_model(runs[1])
    masks = Masks.load(runs[1] / 'masks.safetensors')
    graph = easypruner.trace(model, dict(inputs=torch.zeros(1, 1, 8, 8), mode='tensor'))
    (mask,) = (
        masks[name]
        for name, group in graph.groups.items()
        if any(m.param == 'head.fc.weight' for m in group.members)
    )
    assert not mask.all()
    held = features(model).double().mean(dim=0)
    expected = model.head.fc.bias.detach().double()
    for channel in range(16):
        if not mask[channel]:
            expected += model.head.fc.weight[:, channel].detach().double() * held[channel]
    actual = read_weights(runs[1] / 'pruned.pth')['head.fc.bias'].double()
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


def test_nothing_but_biases_and_running_means_differs(runs: tuple[Path, Path]) -> None:
    plain, mean = (read_weights(run / 'pruned.pth') for run in runs)
    differing = {name for name in plain if not torch.equal(plain[name], mean[name])}
    assert 'head.fc.bias' in differing
    assert len(differing) > 3
    assert all(name.endswith(('running_mean', 'fc.bias')) for name in differing)
    assert summary(runs[1])['warnings'] == []


def test_channels_that_cannot_be_compensated_are_a_warning(tmp_path: Path) -> None:
    content = config(batches=1)
    content['model']['neck'] = dict(type='easypruner.Biasless')
    assert prune(write_config(tmp_path, content), tmp_path / 'run') == 0
    (warning,) = summary(tmp_path / 'run')['warnings']
    assert 'neck.mix' in warning and '(1 in all)' in warning


@MODELS.register_module()
class Biasless(nn.Module):
    """A convolution without bias or norm."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(16, 16, 1, bias=False)

    def forward(self, x: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (torch.relu(self.mix(x[-1])).mean((2, 3)),)


@pytest.mark.parametrize(
    'arguments', [dict(compensate='median'), dict(compensate=True), dict(batches=0)]
)
def test_unknown_values_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match='of Prune'):
        Prune(**arguments)
