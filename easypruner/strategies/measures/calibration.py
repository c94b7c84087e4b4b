"""Calibration: estimates the batch norm statistics of a network again."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from easypruner.base.modules import evaluating
from easypruner.errors import EasyPrunerError


@torch.no_grad()
def calibrate(
    model: nn.Module, batches: Iterable[Any], forward: Callable[[nn.Module, Any], object]
) -> None:
    """Estimate the running statistics of every batch norm again, as averages over batches.

    The statistics change in place. The rest of the network runs in evaluation mode. A norm skips a
    batch in which it gets a single value of each channel, because that has no variance; this
    happens behind a global pooling, with a batch of one sample. A norm that is not called keeps
    its statistics. Training modes and momenta are restored.

    Args:
        model: the network.
        batches: batches, as the data loader of the network yields them.
        forward: runs the network on a batch, as ``Context.forward`` does.

    Raises:
        EasyPrunerError: a norm is called, but never gets more than one value of each channel.
    """
    norms = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm) and module.track_running_stats
    }
    with evaluating(model), _estimating(norms) as estimated:
        for batch in batches:
            forward(model, batch)
    for name, succeeded in estimated.items():
        if not succeeded:
            raise EasyPrunerError(
                f'the batch norm {name!r} cannot be calibrated: it gets a single value of each '
                'channel in every batch; use batches of at least two samples'
            )


@contextlib.contextmanager
def _estimating(norms: Mapping[str, _BatchNorm]) -> Iterator[dict[str, bool]]:
    """Let norms average their inputs; yield norm -> whether it got enough, for each called norm."""
    estimated: dict[str, bool] = {}

    def before(name: str, norm: _BatchNorm, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        inputs = next(iter((*args, *kwargs.values())))
        norm.training = _has_variance(norm, inputs)
        # Before the first usable batch, the old statistics are the best available.
        if norm.training and not estimated.get(name):
            norm.reset_running_stats()
        estimated[name] = estimated.get(name, False) or norm.training

    with contextlib.ExitStack() as restored:
        for name, norm in norms.items():
            restored.callback(setattr, norm, 'momentum', norm.momentum)
            hook = partial(before, name)
            restored.enter_context(norm.register_forward_pre_hook(hook, with_kwargs=True))
            # Without a momentum, torch keeps a plain average.
            norm.momentum = None
        yield estimated


def _has_variance(norm: _BatchNorm, inputs: Tensor) -> bool:
    """Tell whether a norm gets more than one value of each channel."""
    # A synchronized norm combines the inputs of all processes, which wait for each other.
    if isinstance(norm, nn.SyncBatchNorm) and dist.is_initialized() and dist.get_world_size() > 1:
        return True
    return inputs.numel() > inputs.shape[1]
