"""A training loop of one's own and an MMEngine Runner make the same push, bit for bit."""

from __future__ import annotations

import copy
import math
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from easypruner_plugins.mask_sparsity import MaskSparsity
from mmengine.config import Config
from mmengine.hooks import Hook
from torch import Tensor
from torch.optim import SGD

import easypruner
from easypruner import Masks, PushWarning
from easypruner.base.randomness import seed_everything
from easypruner.engine.hooks import EpochSeedHook
from easypruner.engine.pruning_hook import PruningHook
from easypruner.engine.runner import RunnerPlan, StageRunner, Tracer, build_runner
from easypruner.engine.schedule import measure_schedule

CONFIG = Path(__file__).parents[2] / 'configs' / 'masksparsity_l1_r20_digits.py'
IMAGES, BATCH, SEED = 256, 64, 3


class First(Hook):
    """Copies the weights before the first update."""

    def before_train(self, runner: Any) -> None:
        self.weights = copy.deepcopy(runner.model.state_dict())


def digits() -> Config:
    """Return the recipe on the digits, with fewer images and a falling schedule."""
    config = Config.fromfile(CONFIG)
    config.train_dataloader.dataset.indices = IMAGES
    config.train_dataloader.batch_size = BATCH
    config.param_scheduler = dict(
        type='LinearLR', start_factor=1.0, end_factor=0.1, end=IMAGES // BATCH, by_epoch=False
    )
    return config


def masks_of(config: Config, model: Any) -> Masks:
    graph = Tracer(config, ())(model)
    return Masks({name: torch.arange(g.size) % 2 == 0 for name, g in graph.groups.items()})


def by_runner(config: Config, folder: Path, options: dict[str, Any]) -> tuple[StageRunner, Any]:
    """Train for an epoch in a Runner; return it, and the weights before the first update."""
    first = First()
    plan = RunnerPlan(folder, SEED, epochs=1, hooks=[EpochSeedHook(SEED, 0), first])
    runner = build_runner(config, plan)
    schedule = measure_schedule(config, IMAGES // BATCH, 1, runner.plain_model)
    masks = masks_of(config, runner.plain_model)
    regularizer = MaskSparsity(**options)
    runner.register_hook(PruningHook(regularizer, masks, schedule, Tracer(config, ())))
    runner.train()
    return runner, first.weights


def by_hand(
    config: Config, runner: StageRunner, weights: dict[str, Tensor], options: dict[str, Any]
) -> dict[str, Tensor]:
    """Train for an epoch in a loop with an optimizer and a scheduler of torch."""
    model = runner.plain_model
    model.load_state_dict(weights)
    model.train()
    settings = {k: v for k, v in config.optim_wrapper.optimizer.items() if k != 'type'}
    optimizer = SGD(model.parameters(), **settings)
    loader = StageRunner.build_dataloader(config.train_dataloader, seed=SEED)
    updates = len(loader)
    scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, total_iters=updates - 1)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', PushWarning)
        pusher = easypruner.regularize(
            model,
            optimizer,
            Tracer(config, ())(model),
            MaskSparsity(**options),
            masks=masks_of(config, model),
            updates=updates,
            scheduler=scheduler,
        )
        seed_everything(SEED, 0, 0, 0)
        loader.sampler.set_epoch(0)
        with pusher:
            for batch in loader:
                data = model.data_preprocessor(batch, training=True)
                loss, _ = model.parse_losses(model(**data, mode='loss'))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                scheduler.step()
    return model.state_dict()


@pytest.mark.parametrize(
    'options',
    [dict(strength=dict(reach=0.5)), dict(strength=dict(until=1e-3)), dict(strength=0.01)],
    ids=str,
)
def test_an_epoch_on_the_digits(options: dict[str, Any], tmp_path: Path) -> None:
    config = digits()
    runner, weights = by_runner(config, tmp_path, options)
    expected = copy.deepcopy(runner.plain_model.state_dict())
    found = by_hand(config, runner, weights, options)
    assert len(runner.train_dataloader) == math.ceil(IMAGES / BATCH)
    for name, tensor in found.items():
        assert torch.equal(tensor, expected[name]), name
    assert not torch.equal(weights['backbone.bn1.weight'], expected['backbone.bn1.weight'])
