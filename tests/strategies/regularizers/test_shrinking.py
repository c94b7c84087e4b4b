"""Thresholds against closed forms: soft thresholding of entries, of whole units, and generic."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from easypruner_plugins.global_sparsity import GlobalSparsity
from easypruner_plugins.greg import GReg
from easypruner_plugins.group_lasso import GroupLasso
from easypruner_plugins.hoyer_square import HoyerSquare
from easypruner_plugins.mask_sparsity import MaskSparsity
from easypruner_plugins.polarization import Polarization
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim import SGD

from easypruner import Masks, Progress, Regularizer
from easypruner.errors import ConfigError
from easypruner.graph import ChannelGraph
from easypruner.testing.networks import Dense, Plain, Residual
from tests.helpers.networks import Shared
from tests.helpers.pushes import Case, make_case, penalty_gradients

LR, MOMENTUM = 0.2, 0.75


def progress_of(
    optimizer: torch.optim.Optimizer, momentum: float = MOMENTUM, **more: Any
) -> Progress:
    return Progress(0, 1, lr=LR, optimizer=optimizer, momentum=momentum, **more)


def sgd(given: Case) -> SGD:
    return SGD(given.model.parameters(), lr=LR, momentum=MOMENTUM)


def values_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


@settings(deadline=None, max_examples=25, derandomize=True)
@given(
    targets=st.lists(st.floats(-2, 2), min_size=12, max_size=12),
    # Rounding hides strengths near 0.
    strength=st.just(0.0) | st.floats(1e-3, 1.5),
    momentum=st.sampled_from([0.0, 0.5]),
)
def test_on_a_quadratic_it_ends_at_the_soft_threshold(
    targets: list[float], strength: float, momentum: float
) -> None:
    """argmin (p - a)^2 / 2 + lambda |p| is sign(a) max(|a| - lambda, 0), and a where it is kept."""
    case = make_case(Plain)
    name, module = next(iter(case.scales().items()))
    scale = module.weight
    a = torch.tensor(targets, dtype=torch.float64)[: len(scale)]
    optimizer = SGD([scale], lr=0.2, momentum=momentum)
    regularizer = MaskSparsity(strength, apply='proximal', biases=False)
    for _ in range(250):
        scale.grad = (scale - a).detach()
        optimizer.step()
        regularizer.shrink(case.graph, case.masks, progress_of(optimizer, momentum))
    for value, target, (_, kept) in zip(scale.tolist(), targets, case.channels(name), strict=False):
        goal = max(abs(target) - strength, 0) * (1 if target > 0 else -1)
        assert value == pytest.approx(target if kept else goal, abs=1e-8)
        if not kept and abs(target) < strength * 0.9:
            assert value == 0


@pytest.mark.parametrize('times', [1, 3])
@pytest.mark.parametrize('biases', [False, True, None])
def test_scales_and_biases_come_down_by_their_own_threshold(
    biases: bool | None, times: int
) -> None:
    """The threshold has the rate of the parameter's own group, and the factor of its channels."""
    case = make_case(Residual)
    slow = case.model.branch[0][1]
    fast = [p for p in case.model.parameters() if all(p is not own for own in slow.parameters())]
    optimizer = SGD([{'params': fast}, {'params': slow.parameters(), 'lr': 0.05}], lr=LR)
    before = values_of(case.model)
    regularizer = MaskSparsity(0.1, apply='proximal', biases=biases, group_strengths=case.strengths)
    regularizer.shrink(case.graph, case.masks, progress_of(optimizer, times=times))
    moved = 0
    for name, values in values_of(case.model).items():
        path, _, part = name.rpartition('.')
        scale = f'{path}.weight'
        if scale not in case.scales() or (part == 'bias' and biases is False):
            assert torch.equal(values, before[name]), name
            continue
        rate = 0.05 if path == 'branch.0.1' else LR
        for value, start, (factor, kept) in zip(
            values.tolist(), before[name].tolist(), case.channels(scale), strict=True
        ):
            threshold = 0 if kept else times * rate * 0.1 * factor / (1 - MOMENTUM)
            goal = max(abs(start) - threshold, 0) * (1 if start > 0 else -1)
            assert value == pytest.approx(goal, abs=1e-15)
            moved += value != start
    assert moved


def test_parameters_that_the_optimizer_does_not_train_stay() -> None:
    case = make_case(Plain)
    first, *others = case.scales().values()
    before = values_of(case.model)
    optimizer = SGD([first.weight], lr=LR)
    GlobalSparsity(0.1, apply='proximal').shrink(case.graph, None, progress_of(optimizer))
    after = values_of(case.model)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {next(iter(case.scales()))} and others


@pytest.mark.parametrize('masked', [False, True])
@pytest.mark.parametrize(
    ('build', 'over'), [(Plain, 'producers'), (Residual, 'producers'), (Plain, 'group')]
)
def test_group_lasso_is_the_group_soft_threshold(
    build: type[nn.Module], over: str, masked: bool
) -> None:
    """Units that are disjoint: theta <- theta * max(1 - t / ||theta||, 0)."""
    case = make_case(build)
    # In a single group, no weight belongs to units in two dimensions.
    groups = list(case.graph.groups) if over == 'producers' else ['body.0.0']
    strengths = {n: case.factor(n) for n in groups} | {'*': 0.0}
    units = [(n, u, parts) for n, u, parts in case.units(over) if n in groups]
    with torch.no_grad():
        for _, unit, parts in units:
            for part in parts:
                part.mul_(0.0 if unit == 2 else 0.05 if unit % 2 else 1.0)
    expected = []
    for name, unit, parts in units:
        norm = float(torch.cat([part.detach().flatten() for part in parts]).norm())
        threshold = LR * 0.8 * case.factor(name) / (1 - MOMENTUM)
        if masked and case.masks[name][unit]:
            threshold = 0.0
        share = max(1 - threshold / norm, 0) if norm else 1.0
        expected.append((share, [share * part.detach().clone() for part in parts]))
    assert {share == 0 for share, _ in expected} == {True, False}
    regularizer = GroupLasso(0.8, over, masked, apply='proximal', group_strengths=strengths)
    regularizer.shrink(case.graph, case.masks, progress_of(sgd(case)))
    for (_, _, parts), (_, goals) in zip(units, expected, strict=True):
        for part, goal in zip(parts, goals, strict=True):
            torch.testing.assert_close(part.detach(), goal, rtol=1e-9, atol=1e-14)


GENERIC: dict[str, Callable[..., Regularizer]] = {
    'GReg': lambda s: GReg(s, ceiling=s, apply='proximal'),
    'GroupLasso alpha': lambda s: GroupLasso(s, alpha=4.0, apply='proximal'),
    'HoyerSquare': lambda s: HoyerSquare(s, apply='proximal'),
    'HoyerSquare weights': lambda s: HoyerSquare(s, 'weights', apply='proximal'),
    'Polarization': lambda s: Polarization(s, apply='proximal'),
    'l2': lambda s: GlobalSparsity(s, norm='l2', apply='proximal'),
}


@pytest.mark.parametrize('strength', [0.2, 1.3])
@pytest.mark.parametrize('build', [Plain, Dense, Shared])
@pytest.mark.parametrize('name', GENERIC)
def test_other_penalties_move_along_their_gradient_and_stop_at_zero(
    name: str, build: type[nn.Module], strength: float
) -> None:
    case = make_case(build)
    regularizer = GENERIC[name](strength)
    gradients = penalty_gradients(regularizer.penalty(case.graph, case.masks), case.model)
    before = values_of(case.model)
    own = {}
    for path, parameter in case.model.named_parameters():
        parameter.grad = own[path] = torch.randn_like(parameter)
    regularizer.shrink(case.graph, case.masks, progress_of(sgd(case)))
    step = LR / (1 - MOMENTUM)
    for path, parameter in case.model.named_parameters():
        assert parameter.grad is own[path], 'the gradient of the loss is kept'
        for value, start, push in zip(
            parameter.flatten().tolist(), before[path].flatten().tolist(),
            gradients[path].flatten().tolist(), strict=True,
        ):  # fmt: skip
            goal = start - step * push
            crosses = push != 0 and goal * start <= 0
            assert value == pytest.approx(0 if crosses else goal, rel=1e-9, abs=1e-12)
    assert any(
        not torch.equal(value, before[path]) for path, value in values_of(case.model).items()
    )


@pytest.mark.parametrize('strength', [0.2, 1.3])
@pytest.mark.parametrize('build', [Plain, Residual, Dense])
def test_a_weight_of_several_units_shrinks_by_the_share_of_each(
    build: type[nn.Module], strength: float
) -> None:
    case = make_case(build)
    expected = {name: value.clone() for name, value in values_of(case.model).items()}
    for name, group in case.graph.groups.items():
        for member in group.members:
            if member.operand.endswith(('running_mean', 'running_var')):
                continue
            for unit, indices in enumerate(member.index.tolist()):
                left = 1.0 if case.masks[name][unit] else 1 - LR * strength / (1 - MOMENTUM)
                for index in indices:
                    expected[member.param].select(member.dim, index).mul_(max(left, 0))
    regularizer = GReg(strength, ceiling=strength, over='group', apply='proximal')
    regularizer.shrink(case.graph, case.masks, progress_of(sgd(case)))
    for name, values in values_of(case.model).items():
        torch.testing.assert_close(values, expected[name], rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize('kind', [GlobalSparsity, GroupLasso])
def test_the_weights_that_an_optimizer_averages_are_shrunk_with_them(
    kind: type[Regularizer],
) -> None:
    """A schedule-free optimizer keeps the iterate z; the parameter is a mixture with it."""
    case = make_case(Plain)
    optimizer = sgd(case)
    for parameter in case.model.parameters():
        optimizer.state[parameter]['z'] = parameter.detach() * 2
    regularizer = kind(0.3, apply='proximal')
    before = values_of(case.model)
    gradients = penalty_gradients(regularizer.penalty(case.graph, None), case.model)
    regularizer.shrink(case.graph, None, progress_of(optimizer))
    pushed = 0
    for path, parameter in case.model.named_parameters():
        for value, factor in ((parameter.detach(), 1), (optimizer.state[parameter]['z'], 2)):
            start = factor * before[path]
            # A unit shrinks by a share, which is that of the parameter; a scale by a distance.
            distance = LR / (1 - MOMENTUM) * gradients[path]
            goal = start - distance * (factor if kind is GroupLasso else 1)
            goal = torch.where((gradients[path] != 0) & (goal * start <= 0), 0, goal)
            torch.testing.assert_close(value, goal, rtol=1e-9, atol=1e-14)
            pushed += int((value != start).sum())
    assert pushed


class FirstWeight(Regularizer):
    """A penalty on one parameter, without a closed form."""

    def penalty(self, graph: ChannelGraph, masks: Masks | None) -> Tensor:
        return self.strength * next(graph.model.parameters()).abs().sum()


@pytest.mark.parametrize('make', [MaskSparsity, GroupLasso, FirstWeight])
def test_a_progress_without_an_optimizer_is_refused(make: type[Regularizer]) -> None:
    case = make_case(Plain)
    with pytest.raises(ConfigError, match=r'Progress\(update, updates, optimizer=optimizer\)'):
        make(0.1, apply='proximal').shrink(case.graph, case.masks, Progress(0, 10))
