"""The classifiers of mmpretrain around models of timm and Hugging Face run from start to end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.helpers.tiny import accuracy_of, prune, summary, tiny_config, write_config

STAGES = [
    dict(type='Train', name='baseline', epochs=1, row='baseline'),
    dict(type='SelectMask', source=dict(type='BNScale', budget=dict(type='Macs', keep=0.7))),
    dict(type='Prune'),
    dict(type='Train', name='finetune', epochs=1, row='finetuned'),
    dict(type='Report'),
]
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
