"""Responses of optimizers: the announced distances are those of the real optimizers."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn, optim
from torch.optim import SGD, Optimizer

from easypruner.errors import ConfigError
from easypruner.strategies.regularizers.response import response_of
from easypruner.strategies.regularizers.schedule import MomentumResponse, Response
from tests.helpers.optimizers import moved_by

RATES = np.linspace(0.02, 0.01, 30)
GRADIENTS = np.linspace(0.5, 2.0, 30) * 1e-3
Make = Callable[[list[nn.Parameter]], Optimizer]


def classes(module: ModuleType) -> Iterator[type[Optimizer]]:
    for value in vars(module).values():
        if inspect.isclass(value) and issubclass(value, Optimizer) and value is not Optimizer:
            yield value


def without_decay(kind: type[Optimizer], **options: Any) -> Make:
    if 'weight_decay' in inspect.signature(kind).parameters:
        options = {'weight_decay': 0.0, **options}
    return lambda parameters: kind(parameters, lr=0.01, **options)


def can_train(make: Make) -> bool:
    """Tell whether it trains a parameter with one dimension, by its gradient alone."""
    try:
        return moved_by(make, RATES[:8], GRADIENTS[:8]) != 0
    except (RuntimeError, TypeError, ValueError):
        return False


def announced(make: Make, dims: int = 1) -> Response:
    optimizer = make([nn.Parameter(torch.full([1] * dims, 3.0))])
    return response_of(optimizer, optimizer.param_groups[0], dims)


def check(make: Make, dims: int = 1) -> Response:
    """Compare the announced distances with real ones, and ``adaptive`` with proportionality."""
    response = announced(make, dims)
    small, large = (moved_by(make, RATES, GRADIENTS * factor, dims) for factor in (1, 10))
    assert response.distance(RATES, GRADIENTS) == pytest.approx(small, rel=1e-9)
    assert response.distance(RATES, GRADIENTS * 10) == pytest.approx(large, rel=1e-9)
    assert response.adaptive == (not math.isclose(large, 10 * small, rel_tol=0.05))
    return response


TRAINING = [kind for kind in classes(optim) if can_train(without_decay(kind))]


def test_most_optimizers_of_torch_are_tested() -> None:
    assert {'SGD', 'Adam', 'AdamW', 'RMSprop'} <= {kind.__name__ for kind in TRAINING}


@pytest.mark.parametrize('kind', TRAINING, ids=lambda kind: kind.__name__)
def test_the_distance_is_that_of_the_real_optimizer(kind: type[Optimizer]) -> None:
    assert check(without_decay(kind)).name == kind.__name__


@pytest.mark.parametrize(
    ('make', 'adaptive'),
    [
        (without_decay(SGD, momentum=0.9), False),
        (without_decay(SGD, momentum=0.9, nesterov=True), False),
        (without_decay(SGD, momentum=0.5, dampening=0.5), False),
        (without_decay(optim.RMSprop, momentum=0.9, centered=True), True),
        (without_decay(optim.Adam, amsgrad=True, betas=(0.8, 0.9)), True),
        # Far above the gradients, eps makes Adam divide by a constant.
        (without_decay(optim.Adam, eps=1e3), False),
        (without_decay(optim.ASGD, lambd=0.0), False),
    ],
)
def test_options_count(make: Make, adaptive: bool) -> None:
    assert check(make).adaptive == adaptive


@pytest.mark.parametrize('kind', [SGD, optim.Adam, optim.AdamW, optim.RMSprop, optim.Adagrad])
def test_a_weight_decay_is_left_out(kind: type[Optimizer]) -> None:
    """The decay is no part of the penalty, and it acts on all parameters."""
    with_decay = announced(without_decay(kind, weight_decay=0.5))
    alone = moved_by(without_decay(kind), RATES, GRADIENTS)
    assert with_decay.distance(RATES, GRADIENTS) == pytest.approx(alone, rel=1e-6)


def test_matrices_may_be_treated_in_another_way() -> None:
    muon = getattr(optim, 'Muon', None)
    if muon is None:
        pytest.skip('this torch does not have Muon')
    assert check(without_decay(muon), dims=2).adaptive


def test_an_optimizer_that_is_derived_from_sgd_is_run() -> None:
    class Doubled(SGD):
        def step(self, closure: Any = None) -> None:
            for group in self.param_groups:
                for parameter in group['params']:
                    parameter.grad.mul_(2)
            super().step(closure)

    response = check(without_decay(Doubled, momentum=0.9))
    plain = MomentumResponse(0.9).distance(RATES, GRADIENTS)
    assert response.distance(RATES, GRADIENTS) == pytest.approx(2 * plain)


@pytest.mark.in_ci
@pytest.mark.parametrize('kind', [SGD, optim.AdamW])
def test_a_long_schedule_is_compressed(kind: type[Optimizer]) -> None:
    """It keeps the sums of rates and of pushes, so the distance differs by little."""
    updates = 9001
    rates = 0.01 * (1 + np.cos(np.pi * np.arange(updates) / updates))
    gradients = np.linspace(0 if kind is SGD else 1e-3, 1e-3, updates)
    make = without_decay(kind, momentum=0.9) if kind is SGD else without_decay(kind)
    real = moved_by(make, rates, gradients)
    assert announced(make).distance(rates, gradients) == pytest.approx(real, rel=0.02)


def test_the_optimizer_itself_is_not_changed() -> None:
    parameter = nn.Parameter(torch.ones(1))
    optimizer = optim.AdamW([parameter], lr=0.01)
    before = {k: v for k, v in optimizer.param_groups[0].items() if k != 'params'}
    response_of(optimizer, optimizer.param_groups[0], 1).distance(RATES, GRADIENTS)
    assert not optimizer.state and parameter.item() == 1
    assert {k: v for k, v in optimizer.param_groups[0].items() if k != 'params'} == before


class Averaged(SGD):
    """Has modes, as schedule-free optimizers do: outside of training it shows an average."""

    def train(self) -> None:
        self.seen = 'train'

    def eval(self) -> None:
        (parameter,) = self.param_groups[0]['params']
        with torch.no_grad():
            parameter.copy_((1 + parameter) / 2)
        self.seen = 'eval'

    def step(self, closure: Any = None) -> None:
        assert self.seen == 'train'
        super().step(closure)


def test_an_optimizer_with_modes_is_switched() -> None:
    response = announced(lambda parameters: Averaged(parameters, lr=0.01))
    assert response.distance(RATES, GRADIENTS) == pytest.approx(float(RATES @ GRADIENTS) / 2)


class Wrapper(SGD):
    """It trains by another optimizer, as a ZeroRedundancyOptimizer does."""

    def __init__(self, parameters: list[nn.Parameter], inner: Make) -> None:
        super().__init__(parameters, lr=0.01)
        self.optim = inner(parameters)


def test_a_distributed_optimizer_responds_as_the_one_that_it_distributes() -> None:
    inner = without_decay(optim.Adam)
    response = announced(lambda parameters: Wrapper(parameters, inner))
    assert response.name == 'Adam'
    assert response.distance(RATES, GRADIENTS) == announced(inner).distance(RATES, GRADIENTS)


def test_an_optimizer_that_needs_more_than_gradients_is_refused_where_it_matters() -> None:
    response = announced(lambda parameters: optim.LBFGS(parameters, lr=0.01))
    assert not response.adaptive
    with pytest.raises(ConfigError, match=r"LBFGS cannot be run .* set apply='proximal'"):
        response.distance(RATES, GRADIENTS)


@pytest.mark.slow
def test_the_optimizers_of_timm() -> None:
    timm = pytest.importorskip('timm.optim', reason="timm is in the extra 'bench'")
    tested = set()
    for kind in dict.fromkeys(classes(timm)):
        make = without_decay(kind)
        if can_train(make):
            check(make)
            tested.add(kind.__name__)
    assert {'Lamb', 'Lars', 'Lion', 'NAdamW'} <= tested


@pytest.mark.slow
@pytest.mark.parametrize('name', ['Lamb', 'Lars'])
def test_a_layerwise_rate_stays_with_a_decay(name: str) -> None:
    """These optimizers scale the step by the norm of parameters that have a decay."""
    timm = pytest.importorskip('timm.optim', reason="timm is in the extra 'bench'")
    kind = getattr(timm, name)
    tiny = moved_by(without_decay(kind, weight_decay=1e-12), RATES, GRADIENTS)
    response = announced(without_decay(kind, weight_decay=0.05))
    assert response.distance(RATES, GRADIENTS) == pytest.approx(tiny, rel=1e-9)
