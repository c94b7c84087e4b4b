"""Resolving: it ends, whatever the search for repairs returns."""

from __future__ import annotations

from typing import Any

import pytest

import easypruner
from easypruner.graph.trial import resolve
from easypruner.testing import example_inputs
from tests.graph.trial.test_trial import HardCoded

_MANY = 100
"""More searches for repairs than the network here needs."""


def test_repairs_that_do_not_help_in_the_end_freeze_the_groups(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Repairs of one round of a trial may undo those of another."""
    calls: list[int] = []

    def find(trial: Any, cause: Any, widths: Any, repairs: Any) -> Any:
        calls.append(1)
        assert len(calls) < _MANY
        return dict(repairs)

    monkeypatch.setattr(resolve, 'find_repairs', find)
    graph = easypruner.trace(HardCoded(), example_inputs())
    reason = next(entry.reason for entry in graph.frozen if entry.param == 'stem.0.weight')
    assert 'does not follow a cut' in reason and 'view(-1, 8, 64)' in reason
    assert reason.endswith('view in the model itself')
    assert set(graph.groups) == {'inner.0'}
