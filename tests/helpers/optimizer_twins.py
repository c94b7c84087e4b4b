"""The check of optimizer handlers, with updates for optimizers that need more than a gradient."""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

import easypruner
from easypruner.graph import ChannelGraph
from easypruner.testing import check_optimizer_handler
from easypruner.testing.optimizer_check import MASKS, Make, SevenChannels, trained

SECOND_ORDER = ('AdaHessian', 'Adahessian', 'SophiaH')
WITH_CLOSURE = ('Closure', 'LBFGS', 'AliG')


def update(model: nn.Module, optimizer: Any) -> None:
    if callable(getattr(optimizer, 'train', None)):
        optimizer.train()
    name, x = type(optimizer).__name__, torch.rand(4, 3, 9, 9)

    def closure() -> Tensor:
        optimizer.zero_grad()
        with torch.enable_grad():
            loss = model(x).square().mean()
            loss.backward(create_graph=name in SECOND_ORDER)
        return loss

    if name.endswith(WITH_CLOSURE):
        optimizer.step(closure)
    else:
        closure()
        optimizer.step()


check_twin = partial(check_optimizer_handler, update=update)


def trained_with(make: Make, updates: int = 3) -> tuple[Any, Any]:
    return trained(make, update, updates)


@cache
def _graph() -> ChannelGraph:
    return easypruner.trace(SevenChannels(), torch.zeros(1, 3, 9, 9))


def prune(model: nn.Module, optimizer: Any, **options: Any) -> None:
    easypruner.prune(model, MASKS, graph=_graph().on(model), optimizer=optimizer, **options)
