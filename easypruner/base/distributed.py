"""Several processes, one a GPU or, on the CPU, over gloo. Without a launcher there is one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


@contextmanager
def launched(launcher: str) -> Iterator[None]:
    """Join the process group that a launcher such as torchrun describes, and leave it at the end.

    Args:
        launcher: ``'none'`` or ``'pytorch'``.
    """
    if launcher == 'none':
        yield
        return
    # MMEngine's own start-up calls CUDA even for gloo, so the group is joined before it looks.
    if torch.cuda.is_available():
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
    """Tell whether this process is the one that writes files."""
    return not dist.is_initialized() or dist.get_rank() == 0


def barrier() -> None:
    """Wait for the other processes."""
    if dist.is_initialized():
        dist.barrier()


def average(tensors: Iterable[Tensor]) -> None:
    """Replace tensors, in place, by their mean over all processes."""
    if dist.is_initialized():
        for tensor in tensors:
            dist.all_reduce(tensor)
            tensor /= dist.get_world_size()


def average_buffers(model: nn.Module) -> None:
    """Give the model of every process the mean of all processes' floating-point buffers.

    Each process has met other data, and batch norms have kept what they met.
    """
    average(buffer for buffer in model.buffers() if buffer.is_floating_point())


def wrapper_config() -> dict[str, Any] | None:
    """Return how MMEngine is to wrap models on several CPU processes; None to leave it to it."""
    if dist.is_initialized() and not torch.cuda.is_available():
        return dict(type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=False)
    return None
