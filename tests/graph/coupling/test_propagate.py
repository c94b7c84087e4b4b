"""Propagation: it ends, also where both parts of a split could stay free."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import easypruner
from easypruner.graph.coupling import propagate

_MANY = 20
"""More propagations than any of the networks here needs."""


@pytest.fixture(autouse=True)
def few_propagations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a propagation that does not end fail instead."""
    apply_rules, calls = propagate._apply_rules, []

    def counted(*arguments: Any) -> None:
        calls.append(1)
        assert len(calls) < _MANY
        apply_rules(*arguments)

    monkeypatch.setattr(propagate, '_apply_rules', counted)


class SquareTransform(nn.Module):
    """PointNet's transform of features: a square matrix that is predicted from them."""

    def __init__(self, width: int, identity: bool, twice: bool) -> None:
        super().__init__()
        self.first, self.last = nn.Conv1d(3, width, 1), nn.Conv1d(width, 8, 1)
        self.predict, self.width = nn.Linear(width, width * width), width
        self.identity, self.twice = identity, twice

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        matrix = self.predict(x.amax(2)).view(-1, self.width, self.width)
        if self.identity:
            matrix = matrix + torch.eye(self.width, dtype=x.dtype, device=x.device)
        if self.twice:
            matrix = torch.bmm(matrix, matrix.transpose(1, 2))
        return self.last(torch.bmm(x.transpose(2, 1), matrix).transpose(2, 1))


@pytest.mark.parametrize('attention', ['width', 'heads'])
@pytest.mark.parametrize('twice', [False, True])
@pytest.mark.parametrize('identity', [False, True])
def test_a_square_matrix_of_features_ends(identity: bool, twice: bool, attention: Any) -> None:
    model = SquareTransform(6, identity, twice)
    graph = easypruner.trace(model, torch.randn(2, 3, 10), attention=attention)
    # If columns of the matrix went, rows would have to go as well, which a view cannot express.
    assert not graph.groups
    assert {e.param for e in graph.frozen if e.dim == 0} >= {'first.weight', 'predict.weight'}
