"""ClosedLoop and ``dict(until=U)``: strengths that rise until magnitudes are down."""

from __future__ import annotations

import json

import pytest
import torch
from easypruner_plugins.global_sparsity import GlobalSparsity
from easypruner_plugins.greg import GReg
from easypruner_plugins.group_lasso import GroupLasso
from easypruner_plugins.hoyer_square import HoyerSquare
from easypruner_plugins.mask_sparsity import MaskSparsity
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim import SGD

from easypruner import Masks, Progress, Regularizer, Schedule
from easypruner.errors import ConfigError
from easypruner.strategies.regularizers.closed_loop import ARRIVAL, ClosedLoop
from easypruner.testing.networks import Plain, Residual
from tests.helpers.pushes import Case, make_case

UPDATES, LR = 200, 0.1
ROWS = st.lists(
    st.dictionaries(st.sampled_from('abc'), st.floats(0, 10), min_size=1), min_size=1, max_size=30
)


@given(ROWS, st.floats(1e-4, 1))
def test_gains_only_rise(rows: list[dict[str, float]], until: float) -> None:
    loop = ClosedLoop(until)
    before: dict[str, float] = {}
    for number, row in enumerate(rows):
        share = number / len(rows)
        changed = loop.follow(row, share)
        for name, gain in loop.gains.items():
            assert gain >= before.get(name, 0.0)
        assert changed == (loop.gains != before)
        for name, magnitude in row.items():
            # Below the limit, or below the course, nothing is raised.
            if name in before and magnitude <= until:
                assert loop.gains[name] == before[name]
            if name in before and share >= ARRIVAL and magnitude > until:
                assert loop.gains[name] > before[name]
        before = dict(loop.gains)


@given(ROWS, st.floats(1e-4, 1))
def test_a_loop_continues_from_its_state(rows: list[dict[str, float]], until: float) -> None:
    whole, first = ClosedLoop(until), ClosedLoop(until)
    for number, row in enumerate(rows):
        whole.follow(row, number / len(rows))
        first.follow(row, number / len(rows))
        second = ClosedLoop(until)
        second.load_state_dict(json.loads(json.dumps(first.state_dict())))
        first = second
        assert first.gains == whole.gains
    first.load_state_dict({})
    assert first.gains == {} and first.state_dict() == ClosedLoop(until).state_dict()


@given(st.integers(1, 5000), st.integers(1, 40))
def test_it_is_due_at_a_hundred_pushes_or_at_all(updates: int, every: int) -> None:
    loop = ClosedLoop(0.1)
    pushes = range(0, updates, every)
    due = [u for u in pushes if loop.is_due(u, updates, min(every, updates - u))]
    assert due[0] == 0
    # A shorter last push may fall into a part that was checked before.
    assert min(len(pushes), 100) - 1 <= len(due) <= 100 or every == 1
    if every == 1:
        assert len(due) == min(updates, 100)


def pushed_against(
    regularizer: Regularizer, case: Case, pull: float
) -> list[tuple[float, dict[str, float]]]:
    """Train under a loss of ``pull`` * (p - a)^2 / 2; return strengths and magnitudes."""
    optimizer = SGD(case.model.parameters(), lr=LR)
    targets = [p.detach().clone() for p in case.model.parameters()]
    regularizer.schedule(Schedule(LR * UPDATES, 0.0, UPDATES))
    found = []
    for update in range(UPDATES):
        for parameter, target in zip(case.model.parameters(), targets, strict=True):
            parameter.grad = pull * (parameter.detach() - target)
        optimizer.step()
        progress = Progress(update, UPDATES, lr=LR, optimizer=optimizer)
        regularizer.adapt(case.graph, case.masks, progress)
        regularizer.shrink(case.graph, case.masks, progress)
        assert regularizer.loop is not None
        gains = regularizer.loop.gains
        factors = regularizer.group_factors(case.graph)
        assert all(factors[name] == gains.get(name, 1.0) for name in factors)
        found.append((sum(gains.values()), regularizer.magnitudes(case.graph, case.masks)))
    return found


LOOPS = {
    'MaskSparsity': lambda: MaskSparsity(dict(until=0.01)),
    'GroupLasso': lambda: GroupLasso(dict(until=0.01), masked=True),
}


@pytest.mark.parametrize('pull', [0.0, 0.5, 20.0 * LR])
@pytest.mark.parametrize('build', [Plain, Residual])
@pytest.mark.parametrize('name', LOOPS)
def test_magnitudes_come_down_whatever_the_loss_pulls(
    name: str, build: type[nn.Module], pull: float
) -> None:
    case = make_case(build)
    regularizer = LOOPS[name]()
    found = pushed_against(regularizer, case, pull)
    gains = [total for total, _ in found]
    assert gains == sorted(gains)
    assert max(found[-1][1].values()) <= 0.01
    left = removed_magnitudes(name, case)
    assert max(left.values()) <= 0.01
    assert found[-1][1] == pytest.approx(left)
    if pull == 0:
        arrived = found[int((ARRIVAL + 0.05) * UPDATES)][1]
        assert max(arrived.values()) <= 0.01


def removed_magnitudes(name: str, case: Case) -> dict[str, float]:
    """Return the largest removed scale or bias, or norm of a unit, of each group, by loops."""
    found: dict[str, float] = {}
    if name == 'GroupLasso':
        for group, unit, parts in case.units('producers'):
            norm = float(torch.cat([part.detach().flatten() for part in parts]).norm())
            own = 0.0 if case.masks[group][unit] else norm
            found[group] = max(found.get(group, 0.0), own)
        return found
    for group_name, group in case.graph.groups.items():
        for member in group.members:
            if member.operand in ('batch_norm.weight', 'batch_norm.bias'):
                values = case.graph.parameter(member.param).detach().abs()
                for unit, indices in enumerate(member.index.tolist()):
                    for index in indices:
                        own = 0.0 if case.masks[group_name][unit] else float(values[index])
                        found[group_name] = max(found.get(group_name, 0.0), own)
    return found


class Joined(nn.Module):
    """A norm behind a concatenation, which has channels of several groups."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 6, 1)
        self.norm, self.head = nn.BatchNorm2d(10), nn.Linear(10, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(torch.cat([self.left(x), self.right(x)], dim=1)).relu()
        return self.head(x.mean((2, 3)))


def test_magnitudes_are_those_of_the_groups_own_channels() -> None:
    case = make_case(Joined)
    with torch.no_grad():
        case.model.norm.weight[4:] = 0.001
    regularizer = MaskSparsity(dict(until=0.01))
    regularizer.schedule(Schedule(LR * UPDATES, 0.0, UPDATES))
    expected = {n: v for n, v in removed_magnitudes('MaskSparsity', case).items() if v}
    actual = {n: v for n, v in regularizer.magnitudes(case.graph, case.masks).items() if v}
    assert actual == pytest.approx(expected)


class Unmeasured(Regularizer):
    def penalty(self, graph: object, masks: Masks | None) -> Tensor:
        raise AssertionError


@pytest.mark.parametrize(
    ('make', 'words'),
    [
        (lambda s: MaskSparsity(s, apply='gradient'), "MaskSparsity needs apply='proximal'"),
        (GlobalSparsity, 'GlobalSparsity, which leaves to the training what goes to zero'),
        (lambda s: GroupLasso(s, alpha=4.0), 'GroupLasso with alpha=4.0'),
        (lambda s: Unmeasured(s), 'Unmeasured does not say which magnitudes'),
        (lambda s: HoyerSquare(s), 'HoyerSquare does not say which magnitudes'),
        (lambda s: GReg(s), 'GReg does not say which magnitudes'),
    ],
)
def test_what_cannot_close_the_loop_is_refused(make: object, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make(dict(until=0.01))


@pytest.mark.parametrize('strength', [dict(until=-1.0), dict(until='x'), dict(unti=1.0), {}])
def test_invalid_limits_are_refused(strength: object) -> None:
    with pytest.raises(ConfigError, match='strength='):
        MaskSparsity(strength)


def test_a_schedule_without_a_rate_is_refused() -> None:
    with pytest.raises(ConfigError, match='sum to 0'):
        MaskSparsity(dict(until=0.01)).schedule(Schedule(0.0, 0.9, 10))
