"""Ways of training: accumulation, clipping, mixed precision."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from torch import Tensor, nn

from tests.helpers.tiny import BATCH, TRAIN_IMAGES

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
