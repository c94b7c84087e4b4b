"""Ways of training the tiny network, and masks of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from torch import Tensor, nn

import easypruner
from easypruner import Masks
from easypruner.engine.runner import Tracer
from tests.helpers.tiny import BATCH, TRAIN_IMAGES, original_model, tiny_config

EPOCHS = 2
ITERATIONS = EPOCHS * TRAIN_IMAGES // BATCH


@OPTIM_WRAPPERS.register_module()
class ScaledAutocast(OptimWrapper):
    """Mixed precision on the CPU, where MMEngine's AmpOptimWrapper refuses to run."""

    def __init__(self, *args: Any, scale: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.scaler = torch.amp.GradScaler('cpu', init_scale=1024.0, enabled=scale)

    def backward(self, loss: Tensor, **kwargs: Any) -> None:
        self.scaler.scale(loss).backward(**kwargs)
        self._inner_count += 1

    def step(self, **kwargs: Any) -> None:
        if self.clip_grad_kwargs:
            self.scaler.unscale_(self.optimizer)
            self._clip_grad()
        self.scaler.step(self.optimizer, **kwargs)
        self.scaler.update()

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        with super().optim_context(model), torch.autocast('cpu', torch.bfloat16):
            yield


WAYS = {
    'plain': dict(),
    'accumulation': dict(accumulative_counts=2),
    'uneven accumulation': dict(accumulative_counts=4),
    'clipping': dict(clip_grad=dict(max_norm=0.5)),
    'autocast': dict(type='ScaledAutocast'),
    'gradient scaler': dict(type='ScaledAutocast', scale=True),
    'scaler, clipping, accumulation': dict(
        type='ScaledAutocast', scale=True, clip_grad=dict(max_norm=0.5), accumulative_counts=2
    ),
}


def every_second_unit() -> Masks:
    """Return masks of the tiny network that remove every second unit."""
    graph = Tracer(Config(tiny_config()), ())(original_model())
    return Masks({name: torch.arange(g.size) % 2 == 0 for name, g in graph.groups.items()})


def removed_channels(masks: Masks) -> dict[str, Tensor]:
    """Find the removed channels of each batch norm from the cut itself, not from a plugin."""
    model = original_model()
    for parameter in model.parameters():
        parameter.data = torch.arange(parameter.numel(), dtype=torch.float).view_as(parameter)
    norms = {
        f'{path}.weight': module
        for path, module in model.named_modules()
        if isinstance(module, nn.BatchNorm2d)
    }
    sizes = {name: norm.num_features for name, norm in norms.items()}
    graph = Tracer(Config(tiny_config()), ())(model)
    easypruner.prune(model, masks, graph=graph)
    return {
        name: ~torch.isin(torch.arange(sizes[name]), norm.weight.detach().long())
        for name, norm in norms.items()
    }
