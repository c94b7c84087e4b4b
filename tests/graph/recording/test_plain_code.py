"""Plain code: a network whose code may change something is restored as a whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import easypruner
from easypruner.graph.recording.plain_code import PlainCode
from easypruner.testing import example_inputs


class Plain(nn.Module):
    """A network with what code could change."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1)
        self.parts = nn.ModuleList([nn.ReLU(), nn.BatchNorm2d(8)])
        self.seen: list[Any] = []
        self.table = {'calls': 0}
        self.mean = torch.zeros(1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        for part in self.parts:
            x = part(x)
        x += 1
        return self.head(x)


def listed(self: Any, x: Tensor) -> Tensor:
    """Append to a list of the module."""
    self.seen.append(x.dim())
    return self.head(self.conv(x))


def listed_in_place(self: Any, x: Tensor) -> Tensor:
    """Add to a list of the module under another name."""
    seen = self.seen
    seen += [x]
    return self.head(self.conv(x))


def counted(self: Any, x: Tensor) -> Tensor:
    """Set an item of a dict of the module."""
    self.table['calls'] += 1
    return self.head(self.conv(x))


def replaced(self: Any, x: Tensor) -> Tensor:
    """Set an item of a list of modules."""
    self.parts[0] = self.parts[1]
    return self.head(self.conv(x))


def extended(self: Any, x: Tensor) -> Tensor:
    """Add to a list of modules under another name."""
    parts = self.parts
    parts += [self.conv]
    return self.head(self.conv(x))


def averaged(self: Any, x: Tensor) -> Tensor:
    """Change a plain tensor in place."""
    mean = self.mean
    mean += 1
    return self.head(self.conv(x))


def state_of(model: Any) -> list[Any]:
    """Return what the forward passes here may change."""
    content = [list(model.seen), dict(model.table), model.mean.tolist()]
    return [*content, list(model.parts), model.training, sorted(vars(model))]


def test_plain_code_changes_nothing() -> None:
    model = Plain()
    assert PlainCode(model.modules()).changes_nothing
    before, weight = state_of(model), model.conv.weight
    easypruner.trace(model, example_inputs())
    assert state_of(model) == before
    assert model.conv.weight is weight


@pytest.mark.parametrize(
    'forward', [listed, listed_in_place, counted, replaced, extended, averaged]
)
def test_what_code_changes_is_restored(forward: Callable[..., Tensor]) -> None:
    model = type('Changing', (Plain,), {'forward': forward})()
    before = state_of(model)
    easypruner.trace(model, example_inputs())
    assert state_of(model) == before
