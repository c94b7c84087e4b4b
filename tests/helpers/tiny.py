"""A whole run in seconds: an 8-layer network on a few digits, as a config to change."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import Runner
from torch import nn

from easypruner.cli.main import main
from easypruner.testing import runs

TOOL = Path(__file__).parents[2] / 'tools' / 'prune.py'
TRAIN_IMAGES, VAL_IMAGES, BATCH = runs.TRAIN_IMAGES, runs.VAL_IMAGES, runs.BATCH


def tiny_config(**changes: Any) -> dict[str, Any]:
    """Return the content of a config; a key given as None is left out."""
    content = {**runs.tiny_config(tiny_stages()), **changes}
    return {key: value for key, value in content.items() if value is not None}


def tiny_stages() -> list[dict[str, Any]]:
    """Return the stages of the whole method, an epoch or two each."""
    return [
        dict(type='Train', name='baseline', epochs=2, row='baseline'),
        dict(type='SelectMask', source=_source()),
        dict(
            type='Train',
            name='mask_sparsity',
            epochs=2,
            row='sparse',
            regularizer=dict(type='MaskSparsity', strength=dict(reach=5.0)),
        ),
        dict(type='Prune'),
        dict(type='Calibrate', batches=2),
        dict(type='Train', name='finetune', epochs=1, row='finetuned'),
        dict(type='Report'),
    ]


def write_config(folder: Path, content: dict[str, Any] | None = None, name: str = 'tiny') -> Path:
    """Write a config file, :func:`tiny_config` unless given, and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f'{name}.py'
    Config(copy.deepcopy(content or tiny_config())).dump(path)
    return path


def prune(config: Path, work_dir: Path, *arguments: str) -> int:
    """Run ``easypruner prune`` in this process and return its exit code."""
    return main(['prune', str(config), '--work-dir', str(work_dir), *arguments])


def summary(work_dir: Path) -> dict[str, Any]:
    """Return the content of a run's summary.json."""
    content: dict[str, Any] = json.loads((work_dir / 'summary.json').read_text())
    return content


def torchrun(config: Path, work_dir: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``tools/prune.py`` in two processes."""
    command = [
        sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2',
        str(TOOL), str(config), '--work-dir', str(work_dir), '--launcher', 'pytorch', *arguments,
    ]  # fmt: skip
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': ''}
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=300, env=environment
    )


def original_model() -> nn.Module:
    """Return the unpruned network of :func:`tiny_config`."""
    content = tiny_config()
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model: nn.Module = MODELS.build(
            content['model'] | {'data_preprocessor': content['data_preprocessor']}
        )
    return model


def accuracy_of(config: Path, work_dir: Path) -> float:
    """Test a pruned network as anyone would, with plain MMEngine."""
    settings = Config.fromfile(config)
    settings.work_dir = str(work_dir)
    metrics: dict[str, float] = Runner.from_cfg(settings).test()
    return metrics['accuracy/top1']


def _source() -> dict[str, Any]:
    return dict(type='BNScale', budget=dict(type='Macs', keep=0.5))
