"""Calibration: batch norm statistics of a network as it is now."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


@torch.no_grad()
def calibrate(
    model: nn.Module, batches: Iterable[Any], forward: Callable[[nn.Module, Any], object]
) -> None:
    """Reset the running statistics of every batch norm and average them over batches, in place.

    The rest of the network runs in evaluation mode, and is in it afterwards.

    Args:
        model: the network.
        batches: as its data loader yields them.
        forward: runs the network on one of them, as ``Context.forward`` does.
    """
    norms = [
        module
        for module in model.modules()
        if isinstance(module, _BatchNorm) and module.track_running_stats
    ]
    before = [(norm, norm.momentum) for norm in norms]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        # Without a momentum torch keeps the plain average.
        norm.momentum = None
        norm.train()
    for batch in batches:
        forward(model, batch)
    for norm, momentum in before:
        norm.momentum = momentum
    model.eval()
