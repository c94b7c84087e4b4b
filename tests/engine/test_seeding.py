"""Random numbers depend on seed, stage, epoch and process, but not on earlier code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook

from easypruner.engine.checkpoint import PlainCheckpointHook
from easypruner.engine.hooks import EpochSeedHook
from easypruner.engine.runner import RunnerPlan, build_runner
from tests.helpers.tiny import tiny_config


class Batches(Hook):
    """Keeps a copy of every batch of training."""

    def __init__(self) -> None:
        self.inputs: list[torch.Tensor] = []

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        self.inputs.append(torch.as_tensor(data_batch['inputs']).clone())


def batches(folder: Path, epochs: int, workers: int, shuffle: bool = True) -> list[torch.Tensor]:
    content = tiny_config(
        stages=None, default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=1))
    )
    content['train_dataloader'] |= dict(num_workers=workers, persistent_workers=workers > 0)
    content['train_dataloader']['sampler']['shuffle'] = shuffle
    seen = Batches()
    hooks = [PlainCheckpointHook(), EpochSeedHook(0, 0), seen]
    plan = RunnerPlan(folder, seed=0, epochs=epochs, hooks=hooks)
    build_runner(Config(content), plan).train()
    return seen.inputs


@pytest.mark.parametrize('workers', [0, 2])
def test_a_resumed_run_sees_the_same_augmented_images(workers: int, tmp_path: Path) -> None:
    whole = batches(tmp_path / 'whole', 2, workers)
    batches(tmp_path / 'halves', 1, workers)
    rest = batches(tmp_path / 'halves', 2, workers)
    assert len(rest) == len(whole) // 2
    for mine, theirs in zip(rest, whole[len(rest) :], strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize('workers', [0, 2])
def test_images_are_augmented_differently_in_every_epoch(workers: int, tmp_path: Path) -> None:
    whole = batches(tmp_path, 2, workers, shuffle=False)
    first, second = (torch.cat(half).flatten(1) for half in (whole[:3], whole[3:]))
    # There are nine positions to crop at, so one image in nine is the same by accident.
    repeated = (first == second).all(1).float().mean()
    assert repeated < 0.4
