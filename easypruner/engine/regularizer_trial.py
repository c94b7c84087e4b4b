"""A regularizer is tried once before a run: its penalty is computed and its gradient added."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator

import torch
from torch import nn

from easypruner.base.modules import evaluating
from easypruner.engine.failures import blaming
from easypruner.graph import ChannelGraph, Masks
from easypruner.graph.recording.tape import call_arguments
from easypruner.strategies import Progress, Regularizer, Schedule

_RATE = 0.1


def try_regularizer(
    regularizer: Regularizer, graph: ChannelGraph, schedule: Schedule, has_masks: bool
) -> None:
    """Call what a regularizer does at an update, once. Neither it nor the model changes.

    Args:
        regularizer: a regularizer that has not been used.
        graph: the channel graph of the network.
        schedule: the learning rates of its stage.
        has_masks: whether there will be masks; those that remove every second unit are used.

    Raises:
        EasyPrunerError: it raised an exception or returned something wrong.
    """
    regularizer = copy.deepcopy(regularizer)
    masks = every_second(graph) if has_masks else None
    owner = f'the regularizer {type(regularizer).__name__}'
    parameters = [p for p in graph.model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=_RATE, momentum=0.9)
    progress = Progress(0, max(schedule.updates, 1), lr=_RATE, optimizer=optimizer)
    with _unchanged(graph.model), blaming(owner, lambda: ''):
        regularizer.schedule(schedule.slowest(regularizer.pushed_names(graph, masks)))
        if regularizer.watches:
            args, kwargs = call_arguments(graph.example_inputs)
            with regularizer.watching(graph, masks), evaluating(graph.model):
                graph.model(*args, **kwargs)
                regularizer.joined(torch.zeros((), device=parameters[0].device), progress)
        regularizer.add_gradient(graph, masks, progress)


def every_second(graph: ChannelGraph) -> Masks:
    """Return masks that keep every second unit, and those of groups with a single one."""
    return Masks({name: torch.arange(g.size) % 2 == 0 for name, g in graph.groups.items()})


@contextlib.contextmanager
def _unchanged(model: nn.Module) -> Iterator[None]:
    """Restore the gradients of a model, and what is in its modules' buffers, after a block."""
    gradients = [(p, p.grad) for p in model.parameters()]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    for parameter, gradient in gradients:
        parameter.grad = None if gradient is None else gradient.clone()
    try:
        yield
    finally:
        for parameter, gradient in gradients:
            parameter.grad = gradient
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
