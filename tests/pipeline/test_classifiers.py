"""Classifiers of mmpretrain around models of timm, Hugging Face and one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mmengine.registry import MODELS
from torch import Tensor, nn

from tests.helpers.tiny import accuracy_of, prune, summary, tiny_config, write_config

STAGES = [
    dict(type='Train', name='baseline', epochs=1, row='baseline'),
    dict(type='SelectMask', source=dict(type='BNScale', budget=dict(type='Macs', keep=0.7))),
    dict(type='Prune'),
    dict(type='Train', name='finetune', epochs=1, row='finetuned'),
    dict(type='Report'),
]


@MODELS.register_module()
class ByWidth(nn.Module):
    """A backbone that works otherwise if few channels are left."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        x = self.first(x)
        return (self.last(x.relu() if x.shape[1] > 3 else x.tanh()),)


WIDTHS = dict(channels=(4, 8, 8, 8), stem_width=4, layers=(1, 1, 1, 1))


def timm_classifier(folder: Path) -> dict[str, Any]:
    pytest.importorskip('timm')
    return dict(type='TimmClassifier', model_name='resnet10t', num_classes=10, in_chans=1, **WIDTHS)


def timm_backbone(folder: Path) -> dict[str, Any]:
    pytest.importorskip('timm')
    backbone = dict(type='TIMMBackbone', model_name='resnet10t', in_channels=1, **WIDTHS)
    return dict(
        type='ImageClassifier',
        backbone=backbone,
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=10, in_channels=8),
    )


def hugging_face_classifier(folder: Path) -> dict[str, Any]:
    transformers = pytest.importorskip('transformers')
    config = transformers.ResNetConfig(
        num_channels=1,
        embedding_size=4,
        hidden_sizes=[4, 8],
        depths=[1, 1],
        layer_type='basic',
        num_labels=10,
    )
    config.save_pretrained(folder / 'hf')
    return dict(type='HuggingFaceClassifier', model_name=str(folder / 'hf'))


@pytest.mark.parametrize('make', [timm_classifier, timm_backbone, hugging_face_classifier])
def test_each_runs_from_start_to_end(make: Any, tmp_path: Path) -> None:
    content = tiny_config(model=make(tmp_path), stages=STAGES)
    assert prune(write_config(tmp_path, content), tmp_path / 'run') == 0
    rows = summary(tmp_path / 'run')['rows']
    assert rows[-1]['macs'] <= 0.7 * rows[0]['macs']
    # Plain MMEngine builds the result, with the names of its own state dict.
    config = tmp_path / 'run' / 'pruned_config.py'
    assert accuracy_of(config, tmp_path / 'test') == pytest.approx(rows[-1]['accuracy'], abs=1e-3)


@pytest.mark.parametrize('cuts', [True, False])
def test_masks_by_which_the_network_cannot_be_cut_end_the_run_before_it_trains_with_them(
    cuts: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = dict(
        type='ImageClassifier',
        backbone=dict(type='ByWidth'),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=10, in_channels=8),
    )
    budget = dict(type='Ratio', keep=0.25, scope='layer')
    push = dict(type='MaskSparsity', strength=0.1, without_scales='weights')
    stages = [
        dict(type='SelectMask', source=dict(type='L1Norm', budget=budget)),
        dict(type='Train', name='push', epochs=1, regularizer=push),
        dict(type='Prune' if cuts else 'Zero', row='after'),
        dict(type='Report'),
    ]
    config = write_config(tmp_path, tiny_config(model=model, stages=stages))
    assert prune(config, tmp_path / 'run') == (2 if cuts else 0)
    error = capsys.readouterr().err
    assert ("keep other numbers of units of 'backbone.first'" in error) == cuts
    assert any(path.name.endswith('push') for path in (tmp_path / 'run').iterdir()) != cuts
