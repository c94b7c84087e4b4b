"""Runs in several processes: one process per GPU, or several CPU processes connected by gloo."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from easypruner.errors import EasyPrunerError

_Value = TypeVar('_Value')


@contextmanager
def launched(launcher: str) -> Iterator[None]:
    """Join the process group of a launcher such as torchrun, and leave it after the block.

    Args:
        launcher: ``'none'`` for a single process; for all others, the variables that torchrun sets
            are set.

    Raises:
        EasyPrunerError: another process has ended.
    """
    if launcher == 'none':
        yield
        return
    # MMEngine's start-up calls CUDA even for gloo. It skips this step if a group exists already.
    if torch.cuda.is_available():
        # A run in a single process does not need MMEngine's distributed package.
        from mmengine.dist import init_dist

        init_dist('pytorch', backend='nccl')
    else:
        dist.init_process_group('gloo')
    try:
        yield
        barrier()
    except RuntimeError as error:
        if is_lost_connection(error):
            raise EasyPrunerError(
                'another process of this run has ended, with the message above or because it was '
                'killed, for example when the memory was used up; continue with --resume'
            ) from error
        raise
    finally:
        # While a wrapped model lives, so do the threads of its process group. Without this, they
        # would outlive the interpreter, which now and then ends the process with SIGABRT.
        gc.collect()
        dist.destroy_process_group()


def is_lost_connection(error: Exception) -> bool:
    """Return whether an error says that another process has ended."""
    # Gloo's errors have no class of their own.
    return isinstance(error, dist.DistError) or (
        type(error) is RuntimeError and 'gloo' in str(error)
    )


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


def world_size() -> int:
    """Return the number of processes of the run."""
    return dist.get_world_size() if dist.is_initialized() else 1


def from_main(value: _Value) -> _Value:
    """Return the main process's value in all processes."""
    if dist.is_initialized():
        values: list[Any] = [value]
        dist.broadcast_object_list(values)
        return cast(_Value, values[0])
    return value


def on_main(function: Callable[[], object]) -> None:
    """Call a function in the main process, and raise its errors for the user in all processes."""
    problem: Exception | None = None
    if is_main():
        try:
            function()
        except (EasyPrunerError, OSError) as error:
            problem = error
    problem = from_main(problem)
    if problem is not None:
        raise problem


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
