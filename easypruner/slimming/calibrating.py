"""calibrate(): estimates batch norm statistics again, on a caller's batches."""

from __future__ import annotations

from torch import nn

from easypruner.base.checks import check_count
from easypruner.errors import ConfigError
from easypruner.graph.recording.tape import ExampleInputs
from easypruner.graph.recording.wrappers import find_traceable
from easypruner.slimming.checks import Batches, make_opener
from easypruner.slimming.feeding import Feed, Forward
from easypruner.strategies import Context
from easypruner.strategies.measures import calibration

_OWNER = 'calibrate'


def calibrate(
    model: nn.Module,
    batches: Batches,
    *,
    count: int = 50,
    forward: Forward | None = None,
    example_inputs: ExampleInputs | None = None,
) -> None:
    """Estimate the running statistics of every batch norm again, as averages over batches.

    After a cut, the channels that are left get other activations. The weights stay the same, and
    the rest of the network runs in evaluation mode. A network without batch norms does not change.
    In several processes, each one estimates the statistics on its own batches.

    Args:
        model: the network, which may be wrapped.
        batches: batches of training data: a data loader, a list, or a function that opens a pass.
            A batch is a pair of inputs and targets, inputs alone, or a dict of keyword arguments.
            Tensors are moved to the device of the network.
        count: the number of batches that are used, unless there are fewer.
        forward: a function that runs a network on a batch, for batches of another structure.
        example_inputs: as for :func:`easypruner.trace`; needed for networks with several inputs, to
            tell them from pairs of inputs and targets.

    Raises:
        ConfigError: an argument has a wrong value, or the network cannot run on the batches.
        EasyPrunerError: there is no batch, or a norm never gets more than one value of each
            channel.

    >>> import torch
    >>> net = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(1))
    >>> calibrate(net, [(torch.tensor([[1.0], [3.0]]), torch.tensor([0, 1]))])
    >>> net[1].running_mean
    tensor([2.])
    """
    network = find_traceable(model)
    check_count(count, 'count', _OWNER)
    feed = Feed(example_inputs, forward, None, _OWNER, takes_loss=False)
    opener = make_opener(batches, _OWNER)
    if opener is None:
        raise ConfigError(f'batches=None of {_OWNER}; expected batches of training data')
    feed.check(batches)
    found = Context(batches=opener).some_batches(count, _OWNER)
    calibration.calibrate(network, found, feed.forward)
