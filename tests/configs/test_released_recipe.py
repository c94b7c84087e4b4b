"""The ImageNet recipe from end to end, on an artificial data set and a narrow network."""

from __future__ import annotations

from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.runner import Runner

from tests.helpers.imagenet import make_imagenet
from tests.helpers.tiny import prune, summary

CONFIG = Path(__file__).parents[2] / 'configs' / 'masksparsity_r50_in1k.py'
SHRUNK = (
    'model.backbone.stem_channels=8',
    'model.backbone.base_channels=8',
    'model.head.in_channels=256',
    'train_cfg.max_epochs=1',
    'stages.1.source.budget.value=0.99',
    'stages.4.batches=2',
    'stages.5.epochs=1',
    *(
        f'{split}_dataloader.{setting}'
        for split in ('train', 'val')
        for setting in (
            'batch_size=8', 'num_workers=1', 'dataset.indices=24',
        )
    ),
    'train_dataloader.dataset.pipeline.1.scale=64',
    'val_dataloader.dataset.pipeline.1.scale=72',
    'val_dataloader.dataset.pipeline.2.crop_size=64',
)  # fmt: skip


@pytest.mark.slow
def test_it_runs_unchanged_but_for_its_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_imagenet(tmp_path / 'data' / 'imagenet')
    monkeypatch.chdir(tmp_path)
    run = tmp_path / 'run'
    assert prune(CONFIG, run, '--cfg-options', *SHRUNK) == 0
    rows = summary(run)['rows']
    assert rows[-1]['name'] == 'finetuned'
    assert rows[-1]['macs'] < rows[0]['macs']
    config = Config.fromfile(run / 'pruned_config.py')
    config.work_dir = str(tmp_path / 'evaluation')
    metrics = Runner.from_cfg(config).test()
    assert metrics['accuracy/top1'] == rows[-1]['accuracy']
