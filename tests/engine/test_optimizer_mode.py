"""OptimizerModeHook: an optimizer with modes is in the right one at each point of a training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import OPTIMIZERS
from torch.optim import SGD

from easypruner.engine.checkpoint import read_weights
from easypruner.engine.hooks import OptimizerModeHook
from easypruner.engine.runner import RunnerPlan, build_runner
from tests.helpers.tiny import BATCH, TRAIN_IMAGES, VAL_IMAGES, prune, tiny_config, write_config

ITERATIONS, VAL_BATCHES = TRAIN_IMAGES // BATCH, -(-VAL_IMAGES // BATCH)


@OPTIMIZERS.register_module()
class Modal(SGD):
    """Shows the average of the first weights and the trained ones, in the mode ``eval``."""

    mode = 'none'

    def step(self, *arguments: Any) -> Any:
        # As schedule-free optimizers do.
        assert self.mode == 'train', 'a step outside of the mode train'
        return super().step(*arguments)

    def train(self) -> None:
        if self.mode == 'eval':
            for group in self.param_groups:
                for parameter in group['params']:
                    parameter.data.copy_(self.state[parameter]['trained'])
        self.mode = 'train'

    def eval(self) -> None:
        if self.mode == 'train':
            for group in self.param_groups:
                for parameter in group['params']:
                    self.state[parameter]['trained'] = parameter.detach().clone()
                    parameter.data.zero_()
        self.mode = 'eval'


class Modes(Hook):
    """Records the mode of the optimizer at each iteration and at checkpoints."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def before_train_iter(self, runner: Any, *_: Any, **__: Any) -> None:
        self.seen.append(f'train {runner.optim_wrapper.optimizer.mode}')

    def before_val_iter(self, runner: Any, *_: Any, **__: Any) -> None:
        self.seen.append(f'val {runner.optim_wrapper.optimizer.mode}')


def test_it_trains_in_one_mode_and_validates_in_the_other(tmp_path: Path) -> None:
    content = tiny_config(
        stages=None,
        optim_wrapper=dict(optimizer=dict(type='Modal', lr=0.1)),
        train_cfg=dict(val_interval=1),
    )
    modes = Modes()
    plan = RunnerPlan(tmp_path, 0, epochs=2, hooks=[modes, OptimizerModeHook()])
    runner = build_runner(Config(content), plan)
    runner.train()
    epoch = ['train train'] * ITERATIONS + ['val eval'] * VAL_BATCHES
    assert modes.seen == epoch * 2
    assert runner.optim_wrapper.optimizer.mode == 'eval'


def test_optimizers_without_modes_are_left_alone(tmp_path: Path) -> None:
    plan = RunnerPlan(tmp_path, 0, epochs=1, hooks=[OptimizerModeHook()])
    build_runner(Config(tiny_config(stages=None)), plan).train()


@pytest.mark.parametrize('epochs', [1, 2])
def test_a_stage_ends_with_the_weights_of_evaluation(epochs: int, tmp_path: Path) -> None:
    content = tiny_config(
        optim_wrapper=dict(optimizer=dict(type='Modal', lr=0.1)),
        stages=[dict(type='Train', epochs=epochs, row='trained'), dict(type='Report')],
    )
    assert prune(write_config(tmp_path, content), tmp_path / 'run') == 0
    weights = read_weights(tmp_path / 'run' / '00_train' / 'weights.pth')
    assert not torch.any(weights['head.fc.weight'])
