"""Runs in several processes: one process per GPU, or several CPU processes connected by gloo."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

_Value = TypeVar('_Value')


@contextmanager
def launched(launcher: str) -> Iterator[None]:
    """Join the process group of a launcher such as torchrun, and leave it after the block.

    Args:
        launcher: ``'none'`` for a single process, or ``'pytorch'`` under torchrun.
    """
    if launcher == 'none':
        yield
        return
    # MMEngine's start-up calls CUDA even for gloo. It skips this step if a group exists already.
    if torch.cuda.is_available():
        # A run in a single process does not need MMEngine's distributed package.
        from mmengine.dist import init_dist

        init_dist(launcher, backend='nccl')
    else:
        dist.init_process_group('gloo')
    try:
        yield
        barrier()
    finally:
        dist.destroy_process_group()


def is_main() -> bool:
    """Return whether this process is the one that writes files and prints."""
    return not dist.is_initialized() or dist.get_rank() == 0


def barrier() -> None:
    """Wait until all processes have come to this call."""
    if dist.is_initialized():
        dist.barrier()


def gathered(value: _Value) -> list[_Value]:
    """Return the value of each process, in the order of their ranks."""
    if not dist.is_initialized():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def average(tensors: Iterable[Tensor]) -> None:
    """Replace tensors in place by their mean over all processes."""
    if dist.is_initialized():
        for tensor in tensors:
            dist.all_reduce(tensor)
            tensor /= dist.get_world_size()


def average_buffers(model: nn.Module) -> None:
    """Replace the floating-point buffers of a model by their mean over all processes.

    Each process trains on other data, so the statistics of its batch norms differ.
    """
    average(buffer for buffer in model.buffers() if buffer.is_floating_point())


def wrapper_config() -> dict[str, Any] | None:
    """Return the wrapper that models need in several CPU processes.

    None means that MMEngine's default is right.
    """
    if dist.is_initialized() and not torch.cuda.is_available():
        return dict(type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=False)
    return None
