"""Calibration: batch norm statistics of a network as it is now."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
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
    """Average the running statistics of every batch norm anew over batches, in place.

    The rest of the network runs in evaluation mode. Where a norm sees a single value of each
    channel, as behind a global pooling in a batch of one sample, there is no variance: such a batch
    is passed over for that norm. Norms that are not called keep what they have. Modes and momenta
    are afterwards what they were.

    Args:
        model: the network.
        batches: as its data loader yields them.
        forward: runs the network on one of them, as ``Context.forward`` does.

    Raises:
        EasyPrunerError: a norm is called, but never with more than one value of each channel.
    """
    norms = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm) and module.track_running_stats
    }
    with evaluating(model), _estimating(norms) as seen:
        for batch in batches:
            forward(model, batch)
    for name, enough in seen.items():
        if not enough:
            raise EasyPrunerError(
                f'the batch norm {name!r} cannot be calibrated: it sees a single value of each '
                'channel in every batch; give batches of two samples at the least'
            )


@contextlib.contextmanager
def _estimating(norms: Mapping[str, _BatchNorm]) -> Iterator[dict[str, bool]]:
    """Let norms average what they see; yield whether each that was called has seen enough."""
    seen: dict[str, bool] = {}
    momenta = {norm: norm.momentum for norm in norms.values()}
    handles = []

    def watch(name: str) -> Callable[..., None]:
        def before(norm: _BatchNorm, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            given = next(iter((*args, *kwargs.values())))
            norm.training = _has_variance(norm, given)
            # Until then the old statistics are the best that there are.
            if norm.training and not seen.get(name):
                norm.reset_running_stats()
            seen[name] = seen.get(name, False) or norm.training

        return before

    try:
        for name, norm in norms.items():
            handles.append(norm.register_forward_pre_hook(watch(name), with_kwargs=True))
            # Without a momentum torch keeps the plain average.
            norm.momentum = None
        yield seen
    finally:
        for handle in handles:
            handle.remove()
        for norm, momentum in momenta.items():
            norm.momentum = momentum


def _has_variance(norm: _BatchNorm, given: Tensor) -> bool:
    # The processes of a synchronized norm see more together, and wait for each other.
    if isinstance(norm, nn.SyncBatchNorm) and dist.is_initialized() and dist.get_world_size() > 1:
        return True
    return given.numel() > given.shape[1]
