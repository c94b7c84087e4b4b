"""calibrate(): batch norm statistics on a caller's batches, compared with those by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel

import easypruner
from easypruner.errors import ConfigError, EasyPrunerError


class Net(nn.Module):
    """A batch norm on the sum of its inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(3)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.norm(x if y is None else x + y)


ROWS = torch.arange(24.0).reshape(2, 4, 3) ** 1.5
LABELS = torch.zeros(4, dtype=torch.int64)
BATCHES: dict[str, tuple[list[Any], dict[str, Any]]] = {
    'tensors': (list(ROWS), {}),
    'pairs': ([(row, LABELS) for row in ROWS], {}),
    'lists': ([[row, LABELS] for row in ROWS], {}),
    'keywords': ([{'x': row} for row in ROWS], {}),
    'two inputs': ([(row, 0 * row) for row in ROWS], {'example_inputs': (ROWS[0], ROWS[0])}),
    'another structure': (
        [{'image': row} for row in ROWS],
        {'forward': lambda net, batch: net(batch['image'])},
    ),
}


@pytest.mark.parametrize('kind', BATCHES)
def test_statistics_are_averages_over_batches(kind: str) -> None:
    batches, options = BATCHES[kind]
    net = Net().train()
    easypruner.calibrate(net, batches, **options)
    torch.testing.assert_close(net.norm.running_mean, ROWS.mean((0, 1)))
    torch.testing.assert_close(net.norm.running_var, ROWS.var(1).mean(0))
    assert net.training and net.norm.momentum == 0.1


def test_only_the_first_batches_count() -> None:
    net = Net()
    easypruner.calibrate(DataParallel(net), lambda: iter(ROWS), count=1)
    torch.testing.assert_close(net.norm.running_mean, ROWS[0].mean(0))


@pytest.mark.parametrize(
    ('batches', 'options', 'message'),
    [
        (None, {}, 'batches=None of calibrate'),
        (iter(ROWS), {}, 'can be read only once'),
        (ROWS, {}, r'\[batch\]'),
        ([], {}, 'the data set is empty'),
        (list(ROWS), {'count': 0}, 'count=0 of calibrate'),
        ([(ROWS[0], LABELS, LABELS)], {}, 'neither a tensor, nor a pair of inputs and targets'),
        (
            [ROWS[:, 0, :2]],
            {},
            'fails on a float32 .*a tensor, or give forward=, a function',
        ),
        ([ROWS[0, :1]], {}, "the batch norm 'norm' cannot be calibrated"),
    ],
)
def test_mistakes_are_named(batches: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises((ConfigError, EasyPrunerError), match=message):
        easypruner.calibrate(Net(), batches, **options)
