"""GroupLasso against the papers' sums over units, written with loops."""

from __future__ import annotations

import pytest
import torch
from easypruner_plugins.group_lasso import GroupLasso
from torch import Tensor, nn

from easypruner import Masks, Progress
from easypruner.errors import ConfigError
from easypruner.testing.networks import Dense, Flattened, Plain, Residual
from tests.helpers.networks import NETWORKS, Shared
from tests.helpers.pushes import (
    GRAD_SCALE,
    RAMP,
    STRENGTH,
    Case,
    added_gradients,
    assert_same,
    make_case,
    make_narrow_case,
    penalty_gradients,
)

FACTOR = RAMP * GRAD_SCALE
ONCE = Progress(0, 1)


def square(slices: list[Tensor]) -> Tensor:
    return torch.stack([(part**2).sum() for part in slices]).sum()


def lasso_by_hand(case: Case, over: str, masked: bool) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for group, unit, slices in case.units(over):
        squared = square(slices)
        if not (masked and case.masks[group][unit]) and squared > 0:
            total = total + STRENGTH * case.factor(group) * torch.sqrt(squared)
    return total


def depgraph_by_hand(case: Case, over: str, masked: bool, alpha: float) -> Tensor:
    importance: dict[str, dict[int, Tensor]] = {}
    for group, unit, slices in case.units(over):
        importance.setdefault(group, {})[unit] = square(slices)
    total = torch.zeros((), dtype=torch.float64)
    for group, units in importance.items():
        values = [value.item() for value in units.values()]
        span = max(values) - min(values)
        for unit, value in units.items():
            if masked and case.masks[group][unit]:
                continue
            gamma = 2 ** (alpha * (max(values) - value.item()) / span) if span else 1.0
            total = total + STRENGTH * case.factor(group) * gamma * value / 2
    return total


@pytest.mark.parametrize('masked', [False, True])
@pytest.mark.parametrize('over', ['producers', 'group'])
@pytest.mark.parametrize('build', NETWORKS)
def test_the_gradient_is_that_of_the_sum_of_norms(
    build: type[nn.Module], over: str, masked: bool
) -> None:
    given = make_case(build)
    regularizer = GroupLasso(
        STRENGTH, over, masked, strength_schedule='linear', group_strengths=given.strengths
    )
    expected = penalty_gradients(lasso_by_hand(given, over, masked), given.model)
    assert_same(added_gradients(regularizer, given, given.masks), expected, FACTOR)


@pytest.mark.parametrize('masked', [False, True])
@pytest.mark.parametrize('over', ['producers', 'group'])
@pytest.mark.parametrize('build', [Residual, Dense, Flattened, Shared])
def test_with_alpha_it_is_the_reweighted_sum_of_squares(
    build: type[nn.Module], over: str, masked: bool
) -> None:
    given = make_case(build)
    regularizer = GroupLasso(
        STRENGTH, over, masked, 4.0, strength_schedule='linear', group_strengths=given.strengths
    )
    expected = penalty_gradients(depgraph_by_hand(given, over, masked, 4.0), given.model)
    assert_same(added_gradients(regularizer, given, given.masks), expected, FACTOR)


@pytest.mark.parametrize('alpha', [None, 4.0])
def test_the_penalty_has_this_gradient(alpha: float | None) -> None:
    given = make_case(Residual)
    with torch.no_grad():
        given.model.stem[0].weight[2] = 0
    regularizer = GroupLasso(STRENGTH, masked=True, alpha=alpha, group_strengths=given.strengths)
    penalty = regularizer.penalty(given.graph, given.masks)
    assert_same(
        added_gradients(regularizer, given, given.masks, ONCE),
        penalty_gradients(penalty, given.model),
        1,
    )
    by_hand = (
        lasso_by_hand(given, 'producers', True)
        if alpha is None
        else depgraph_by_hand(given, 'producers', True, alpha)
    )
    torch.testing.assert_close(penalty, by_hand)


def test_units_of_zeros_are_not_pushed() -> None:
    given = make_case(Plain)
    with torch.no_grad():
        given.model.body[0][0].weight[3:] = 0
    gradient = added_gradients(GroupLasso(STRENGTH), given, None, ONCE)['body.0.0.weight']
    assert not gradient[3:].any()
    assert (gradient[:3].flatten(1).norm(dim=1) - STRENGTH).abs().max() < 1e-12


def test_equal_units_have_no_weight_of_their_own() -> None:
    given = make_case(Plain)
    with torch.no_grad():
        for parameter in given.model.parameters():
            parameter.fill_(0.5)
    actual = added_gradients(GroupLasso(STRENGTH, alpha=4.0), given, None, ONCE)
    weight = actual['body.0.0.weight']
    torch.testing.assert_close(weight, torch.full_like(weight, STRENGTH * 0.5))


def test_a_group_of_one_unit() -> None:
    given = make_narrow_case(Plain)
    weight = given.model.body[0][0].weight
    for alpha, expected in ((None, weight / weight.norm()), (4.0, weight)):
        actual = added_gradients(
            GroupLasso(STRENGTH, alpha=alpha, masked=True), given, given.masks, ONCE
        )
        torch.testing.assert_close(actual['body.0.0.weight'], STRENGTH * expected.detach())


def test_the_largest_is_the_longest_unit_that_is_pushed() -> None:
    given = make_case(Plain)
    norms = {
        (group, unit): float(square(slices).detach().sqrt())
        for group, unit, slices in given.units('producers')
    }
    gone = [n for (group, unit), n in norms.items() if not given.masks[group][unit]]
    assert GroupLasso(1.0).largest(given.graph, None) == pytest.approx(max(norms.values()))
    assert GroupLasso(1.0, over='group', alpha=4).largest(given.graph, None) == 0
    masked = GroupLasso(1.0, masked=True)
    assert masked.largest(given.graph, given.masks) == pytest.approx(max(gone))


def test_masks_are_needed_only_where_it_is_masked() -> None:
    given = make_case(Plain)
    with pytest.raises(ConfigError, match='SelectMask'):
        GroupLasso(1.0, masked=True).penalty(given.graph, None)
    assert float(GroupLasso(1.0, masked=True).penalty(given.graph, Masks())) == 0


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        ({'over': 'producer'}, "did you mean 'producers'"),
        ({'masked': 'yes'}, 'masked='),
        ({'alpha': -1.0}, 'alpha='),
    ],
)
def test_invalid_arguments_are_refused(arguments: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        GroupLasso(1.0, **arguments)
