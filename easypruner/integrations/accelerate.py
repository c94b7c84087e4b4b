"""regularize(): a regularizer pushes in a loop of Accelerate."""

from __future__ import annotations

from typing import Any

from torch import nn

from easypruner.errors import missing_package
from easypruner.graph import ChannelGraph
from easypruner.slimming import Pusher
from easypruner.slimming import regularize as regularize_loop

try:
    from accelerate import Accelerator
    from accelerate.scheduler import AcceleratedScheduler
except ImportError as error:
    raise missing_package('accelerate', __name__) from error


def regularize(
    accelerator: Accelerator,
    model: nn.Module,
    optimizer: Any,
    graph: ChannelGraph,
    regularizer: Any,
    *,
    scheduler: Any = None,
    **options: Any,
) -> Pusher:
    """Let a regularizer push in a loop of Accelerate; see :func:`easypruner.regularize`.

    The pusher is registered for the checkpoints of ``accelerator.save_state()`` and
    ``accelerator.load_state()``.

    Args:
        accelerator: the accelerator.
        model: the network, as ``accelerator.prepare()`` returns it.
        optimizer: the optimizer, as ``accelerator.prepare()`` returns it.
        graph: the channel graph of the network, traced before it was prepared.
        regularizer: as for :func:`easypruner.regularize`.
        scheduler: the scheduler, as ``accelerator.prepare()`` returns it; None for none.
        **options: other arguments of :func:`easypruner.regularize`. ``updates`` counts the updates
            of this process: those in which ``accelerator.sync_gradients`` is true.
    """
    if isinstance(scheduler, AcceleratedScheduler):
        several = scheduler.step_with_optimizer and not scheduler.split_batches
        scheduler = _Steps(scheduler.scheduler, accelerator.num_processes if several else 1)
    pusher = regularize_loop(model, optimizer, graph, regularizer, scheduler=scheduler, **options)
    accelerator.register_for_checkpointing(pusher)
    return pusher


class _Steps:
    """A scheduler that makes a step for each process, as AcceleratedScheduler does."""

    def __init__(self, scheduler: Any, processes: int) -> None:
        self.optimizer = scheduler.optimizer
        self._schedulers = [scheduler]
        self._processes = processes

    def step(self) -> None:
        """Make the steps of an update."""
        for scheduler in self._schedulers * self._processes:
            # As in Accelerate, a cycle that is over makes no step.
            if scheduler._step_count <= getattr(scheduler, 'total_steps', scheduler._step_count):
                scheduler.step()
