"""Numbers that must be finite: which one was the first that was not, and when it matters."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from easypruner.base.finite import norms_of, not_finite
from easypruner.engine.health import LOSS, Found, Health
from easypruner.strategies.regularizers.push import GRADIENT

NAN, INF = float('nan'), float('inf')


def looked(*notes: tuple[int, str, float]) -> Found | None:
    health = Health()
    for iteration, source, value in notes:
        health.note(iteration, source, torch.tensor([0.0, value]))
    return health.look()


def test_finite_numbers_are_not_reported() -> None:
    assert looked((0, LOSS, 1.0), (0, GRADIENT, 3e38), (1, LOSS, -2.0)) is None
    assert Health().look() is None


def test_the_first_source_is_reported() -> None:
    found = looked((3, GRADIENT, 1.0), (3, 'plugin', NAN), (3, LOSS, 0.5), (4, LOSS, NAN))
    assert found == Found(3, 'plugin', 'nan')


def test_the_loss_of_an_iteration_comes_before_its_gradient() -> None:
    # Hooks see the gradient first.
    assert looked((7, GRADIENT, NAN), (7, LOSS, INF)) == Found(7, LOSS, 'infinite')


def test_a_skipped_update_is_not_reported() -> None:
    assert looked((0, LOSS, INF), (1, LOSS, NAN), (2, LOSS, 0.5)) is None


def test_the_first_source_is_remembered_between_looks() -> None:
    health = Health()
    health.note(0, LOSS, torch.tensor(NAN))
    health.look()
    health.note(1, LOSS, torch.tensor(INF))
    assert health.look() == Found(0, LOSS, 'nan')


@pytest.mark.parametrize(('last', 'diverged'), [(0.4, False), (12.0, False), (33.0, True)])
def test_losses_far_above_the_first_are_a_warning(last: float, diverged: bool) -> None:
    health = Health()
    health.note(0, LOSS, torch.tensor(2.0))
    health.note(1, LOSS, torch.tensor(50.0))
    health.look()
    for iteration in (2, 3, 4):
        health.note(iteration, LOSS, torch.tensor(last))
    health.look()
    assert ('the loss rose from 2 to 33' in health.warning) == diverged


def test_many_losses_in_a_row_are_lasting() -> None:
    notes = [(number, LOSS, INF) for number in range(20)]
    found, earlier = looked(*notes), looked(*notes[1:])
    assert found is not None
    assert found.lasting
    assert earlier is not None
    assert not earlier.lasting


@pytest.mark.parametrize('value', [NAN, INF, -INF])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_parameters_that_are_not_finite_are_found(value: float, dtype: torch.dtype) -> None:
    model = nn.Sequential(nn.Linear(3, 40), nn.BatchNorm1d(40)).to(dtype)
    assert not_finite(model) == []
    with torch.no_grad():
        model[0].weight[33, 1] = value
    assert not_finite(model) == ['0.weight']


def test_buffers_may_be_infinite_but_not_nan() -> None:
    model = nn.BatchNorm1d(4)
    model.register_buffer('mask', torch.tensor([0.0, -INF]))
    assert not_finite(model) == []
    model.running_mean[1] = NAN
    assert not_finite(model) == ['running_mean']


def test_large_numbers_are_finite() -> None:
    model = nn.Linear(3, 4)
    with torch.no_grad():
        model.weight.fill_(3e38)
    assert not_finite(model) == []


def test_empty_integer_and_sparse_tensors_are_left_out() -> None:
    tensors = [torch.zeros(0), torch.tensor(3), torch.eye(2).to_sparse(), torch.tensor([-4.0, 3.0])]
    assert norms_of(tensors).tolist() == [5.0]
    assert norms_of([]).tolist() == []
