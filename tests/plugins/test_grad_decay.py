"""GradDecay: removed weights decay linearly, and stay at zero under any optimizer."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from easypruner_plugins.grad_decay import GradDecay
from torch import Tensor, nn
from torch.optim import SGD, Adadelta, Adam, AdamW, NAdam, Optimizer, RMSprop, Rprop

import easypruner
from easypruner import Masks, Progress, Schedule
from easypruner.errors import ConfigError, EasyPrunerError
from easypruner.testing import example_inputs
from easypruner.testing.networks import Depthwise, Plain, Residual
from tests.helpers.networks import Volume
from tests.helpers.pushes import Case, make_case, make_narrow_case

UPDATES = 20
OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    'momentum': lambda p: SGD(p, lr=0.1, momentum=0.9, weight_decay=1e-2),
    'nesterov': lambda p: SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    'adam': lambda p: Adam(p, lr=0.01, amsgrad=True),
    'adamw': lambda p: AdamW(p, lr=0.01, weight_decay=0.1),
    'nadam': lambda p: NAdam(p, lr=0.01),
    'rmsprop': lambda p: RMSprop(p, lr=0.01, momentum=0.9, centered=True),
    'rprop': lambda p: Rprop(p, lr=0.01),
    'adadelta': lambda p: Adadelta(p, lr=1.0),
}


def removed(case: Case) -> dict[str, Tensor]:
    """Return masks of the removed entries of norms' scales and biases."""
    found = {}
    for name in case.scales():
        gone = torch.tensor([not kept for _, kept in case.channels(name)])
        found[name] = found[name.replace('weight', 'bias')] = gone
    return found


def step(regularizer: GradDecay, case: Case, update: int, gradient: float = 0.0) -> None:
    for parameter in case.model.parameters():
        parameter.grad = torch.full_like(parameter, gradient)
    regularizer.add_gradient(case.graph, case.masks, Progress(update, UPDATES))


@pytest.mark.parametrize('share', [0.5, 1.0])
def test_values_and_gradients_decrease_linearly(share: float) -> None:
    given = make_case(Residual)
    before = {name: p.detach().clone() for name, p in given.model.named_parameters()}
    gone, length = removed(given), share * UPDATES
    assert any(bool(which.any()) for which in gone.values())
    for update in range(UPDATES):
        step(GradDecay(share), given, update, gradient=2.0)
        left = max(1 - (update + 1) / length, 0.0)
        for name, parameter in given.model.named_parameters():
            which = gone.get(name, torch.zeros(parameter.shape, dtype=torch.bool))
            expected = torch.where(which, left * before[name], before[name])
            torch.testing.assert_close(parameter.detach(), expected)
            faded = torch.where(which, 2.0 * left, 2.0).to(parameter)
            torch.testing.assert_close(parameter.grad, faded)
            if left == 0:
                assert not parameter[which].any() and not parameter.grad[which].any()


@pytest.mark.parametrize('resumed', [False, True])
@pytest.mark.parametrize('share', [0.5, 1.0])
@pytest.mark.parametrize('name', OPTIMIZERS)
def test_training_ends_at_zero_exactly(name: str, share: float, resumed: bool) -> None:
    given = make_case(Residual)
    given.model.train()
    optimizer = OPTIMIZERS[name](given.model.parameters())
    regularizer = GradDecay(share)
    for update in range(UPDATES):
        if resumed:
            regularizer = GradDecay(share)
        optimizer.zero_grad()
        (given.model(example_inputs().double()) - 3).square().mean().backward()
        progress = Progress(update, UPDATES, optimizer=optimizer)
        regularizer.add_gradient(given.graph, given.masks, progress)
        optimizer.step()
    gone = removed(given)
    for path, parameter in given.model.named_parameters():
        if path in gone:
            assert not parameter[gone[path]].any(), path
            assert parameter[~gone[path]].any() or path.endswith('bias'), path
    before = given.model.eval()(example_inputs().double())
    easypruner.prune(given.model, given.masks, graph=given.graph)
    torch.testing.assert_close(given.model(example_inputs().double()), before)


def test_without_the_optimizer_momentum_is_countered_at_each_update() -> None:
    given = make_case(Plain)
    optimizer = SGD(given.model.parameters(), lr=0.1, momentum=0.9)
    regularizer, gone = GradDecay(), removed(given)
    for update in range(UPDATES):
        for parameter in given.model.parameters():
            parameter.grad = torch.ones_like(parameter)
        regularizer.add_gradient(given.graph, given.masks, Progress(update, UPDATES))
        moved = {name: p.detach().clone() for name, p in given.model.named_parameters()}
        optimizer.step()
    for name, which in gone.items():
        assert not moved[name][which].any()


def test_parameters_without_a_gradient_get_none() -> None:
    given = make_case(Plain)
    GradDecay().add_gradient(given.graph, given.masks, Progress(0, UPDATES))
    assert all(parameter.grad is None for parameter in given.model.parameters())


def test_a_stage_of_one_update_is_enough() -> None:
    given = make_case(Plain)
    GradDecay().add_gradient(given.graph, given.masks, Progress(0, 1))
    for name, which in removed(given).items():
        assert not dict(given.model.named_parameters())[name][which].any()


def test_any_schedule_is_long_enough() -> None:
    given = make_case(Plain)
    regularizer, schedule = GradDecay(), Schedule(0.0, 0.0, 1)
    regularizer.schedule(schedule)
    largest = max(
        dict(given.model.named_parameters())[name][which].abs().max().item()
        for name, which in removed(given).items()
    )
    assert regularizer.largest(given.graph, given.masks) == pytest.approx(largest)
    assert regularizer.reach(schedule) == float('inf')


@pytest.mark.parametrize('build', [Depthwise, Volume])
def test_groups_without_norms(build: type[nn.Module]) -> None:
    given = make_case(build)
    with pytest.raises(EasyPrunerError, match=r"'project'|'first'"):
        GradDecay().add_gradient(given.graph, given.masks, Progress(0, 1))
    GradDecay(without_scales='weights').add_gradient(given.graph, given.masks, Progress(0, 1))
    name = {Depthwise: 'project', Volume: 'first'}[build]
    weight, kept = given.model.get_submodule(name).weight, given.masks[name]
    assert not weight[~kept].any() and weight[kept].any()


def test_a_group_of_one_unit() -> None:
    given = make_narrow_case(Plain)
    GradDecay().add_gradient(given.graph, given.masks, Progress(0, 1))
    assert not given.model.body[0][1].weight.any()


def test_masks_are_needed() -> None:
    given = make_case(Plain)
    with pytest.raises(ConfigError, match='SelectMask'):
        GradDecay().largest(given.graph, None)
    assert GradDecay().largest(given.graph, Masks()) == 0


@pytest.mark.parametrize(
    'arguments',
    [{'share': 0}, {'share': 1.5}, {'share': 'half'}, {'scales': ('norm',)},
     {'without_scales': 'wights'}],
)  # fmt: skip
def test_invalid_arguments_are_refused(arguments: dict) -> None:
    with pytest.raises(ConfigError, match='GradDecay'):
        GradDecay(**arguments)
