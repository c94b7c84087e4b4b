"""Search: candidates in proportion to rates, and candidates for which the budget fails."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from easypruner_plugins.eagle_eye import EagleEye
from easypruner_plugins.evolution import Evolution
from easypruner_plugins.macs import Macs
from easypruner_plugins.optimal_threshold import OptimalThreshold
from easypruner_plugins.ratio import Ratio
from easypruner_plugins.sensitivity import Sensitivity
from easypruner_plugins.threshold import Threshold
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from easypruner import Budget, Context, Masks, MaskSource
from easypruner.errors import BudgetError
from easypruner.graph import ChannelGraph
from easypruner.strategies.sources.candidates import RECORDS
from easypruner.strategies.sources.search import Search, UnitOrder
from easypruner.testing import tiny_batches, tiny_context
from easypruner.testing.networks import Plain
from tests.helpers.networks import traced_network
from tests.helpers.searching import known_loss, loss_least_at_seven, plain_graph, widths_of

Make = Callable[[Budget], Search]
MAKERS: dict[str, Make] = {
    'EagleEye': lambda budget: EagleEye(budget, candidates=9, tolerance=1, batches=2),
    'Evolution': lambda budget: Evolution(budget, population=5, generations=3, batches=2),
}
makers = pytest.mark.parametrize('make', MAKERS.values(), ids=MAKERS)


@given(data=st.data(), seed=st.integers(0, 99))
def test_at_a_threshold_groups_lose_shares_in_proportion_to_rates(
    data: st.DataObject, seed: int
) -> None:
    sizes = data.draw(st.lists(st.integers(1, 20), min_size=1, max_size=4))
    generator = torch.Generator().manual_seed(seed)
    scores = {
        str(n): torch.randint(5, (size,), generator=generator) for n, size in enumerate(sizes)
    }
    order = UnitOrder.of(scores)
    rates = order.draw_rates(generator)
    threshold = data.draw(st.floats(0, 1))
    masks = order.scores(rates).above(threshold)
    for (name, score), rate in zip(scores.items(), rates, strict=True):
        gone = [i for i in range(score.numel()) if not masks[name][i]]
        expected = threshold * rate * score.numel()
        assert len(gone) == pytest.approx(expected, abs=1) and len(gone) <= expected + 1e-9
        lowest = sorted(range(score.numel()), key=lambda i, s=score: (float(s[i]), i))
        assert set(gone) == set(lowest[: len(gone)])


def test_units_beyond_the_maximum_are_removed_after_all_others() -> None:
    order = UnitOrder.of({'a': torch.arange(10), 'b': torch.arange(4)}, 0.5)
    scores = order.scores((0.01, 0.5))
    within = torch.cat([scores['a'][:5], scores['b'][:2]])
    beyond = torch.cat([scores['a'][5:], scores['b'][2:]])
    assert within.max() < beyond.min()


def test_rates_are_above_zero_and_up_to_the_most() -> None:
    order = UnitOrder.of({str(n): torch.zeros(3) for n in range(2000)}, 0.7)
    rates = order.draw_rates(torch.Generator().manual_seed(0))
    assert 0 < min(rates) < 0.01 and 0.69 < max(rates) <= 0.7
    assert order.equal_rates == (0.7,) * 2000


def test_widths_suit_budgets_without_rates() -> None:
    graph = traced_network(Plain)
    order = UnitOrder.of({n: torch.arange(g.size) for n, g in graph.groups.items()})
    masks = Threshold(1.0)(order.scores((0.5, 0.25)), graph, Context())
    assert [masks.kept(name) for name in masks] == [4, 9]


@makers
@pytest.mark.parametrize(
    'budget',
    [Ratio(0.5, scope='layer'), Ratio({'body.0.0': 0.5}), OptimalThreshold(0.2), Macs(keep=1)],
    ids=lambda budget: budget.kind,
)
def test_one_candidate_is_taken_unmeasured_with_a_warning(make: Make, budget: Budget) -> None:
    graph, (context, loss) = plain_graph(), known_loss(loss_least_at_seven)
    order = UnitOrder.of({n: torch.arange(g.size) for n, g in graph.groups.items()}, 0.7)
    expected = budget(order.scores(order.equal_rates), graph, Context())
    with pytest.warns(UserWarning, match=f'budget {budget.kind} makes the same masks for all'):
        masks = make(budget).select(graph, context)
    assert {n: masks.kept(n) for n in masks} == {n: expected.kept(n) for n in expected}
    assert not loss.asked


def test_a_single_candidate_that_was_configured_does_not_warn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        for source in (
            EagleEye(Ratio(0.5), candidates=1), Evolution(Ratio(0.5), population=1, generations=1)
        ):  # fmt: skip
            assert widths_of(source.select(plain_graph(), tiny_context())) == (4, 6)


class Noisy(Macs):
    """A budget that fails on some of the calls."""

    def __init__(self, fails: Callable[[int], bool]) -> None:
        super().__init__(keep=0.5)
        self.fails, self.calls = fails, 0

    def __call__(self, scores: dict[str, Tensor], graph: ChannelGraph, context: Context) -> Masks:
        self.calls += 1
        if self.fails(self.calls):
            raise BudgetError(f'noise at call {self.calls}')
        return super().__call__(scores, graph, context)


@makers
@pytest.mark.parametrize('fails', [lambda call: call == 1, lambda call: call % 3 == 0])
def test_a_candidate_without_masks_is_skipped(make: Make, fails: Callable[[int], bool]) -> None:
    context, loss = known_loss(loss_least_at_seven)
    with pytest.warns(UserWarning, match=r'skipped \d of \d+ candidates.* noise at call \d+'):
        masks = make(Noisy(fails)).select(plain_graph(), context)
    assert widths_of(masks) == min(loss.asked, key=loss_least_at_seven) and len(loss.asked) > 1


@makers
def test_if_no_candidate_has_masks_the_error_is_the_budgets(make: Make) -> None:
    budget, (context, _) = Noisy(lambda call: True), known_loss(loss_least_at_seven)
    with pytest.raises(BudgetError) as caught:
        make(budget).select(plain_graph(), context)
    assert str(caught.value) == f'noise at call {budget.calls}' and budget.calls > 1


class Stopped:
    """A loss on real batches, of a search that is stopped after a number of calls."""

    def __init__(self, context: Context, after: int | None = None) -> None:
        self.calls = 0
        self._loss, self._after = context.loss, after

    def __call__(self, model: nn.Module, batch: object) -> Tensor:
        if self.calls == self._after:
            raise KeyboardInterrupt
        self.calls += 1
        return self._loss(model, batch)


def shuffled(folder: Path, after: int | None = None, seed: int = 5) -> tuple[Context, Stopped]:
    """Return a context like in a new process, whose loader shuffles by its own generator."""
    data = TensorDataset(*(torch.cat(parts) for parts in zip(*tiny_batches(9), strict=True)))
    loader = DataLoader(data, 8, shuffle=True, generator=torch.Generator().manual_seed(seed))
    context = replace(tiny_context(), batches=lambda: loader, folder=folder)
    loss = Stopped(context, after)
    return replace(context, loss=loss), loss


@pytest.mark.parametrize(
    'make',
    [*MAKERS.values(), lambda budget: Sensitivity(budget, steps=2, batches=2)],
    ids=[*MAKERS, 'Sensitivity'],
)
def test_a_resumed_search_equals_an_uninterrupted_one_whatever_the_loader_draws(
    make: Callable[[Budget], MaskSource], tmp_path: Path
) -> None:
    graph = traced_network(Plain)
    context, whole = shuffled(tmp_path / 'whole')
    expected = make(Macs(keep=0.5)).select(graph, context)
    lines = (tmp_path / 'whole' / RECORDS).read_text()
    assert whole.calls >= 6
    for after in range(0, whole.calls, 3):
        interrupted = tmp_path / str(after)
        with pytest.raises(KeyboardInterrupt):
            make(Macs(keep=0.5)).select(graph, shuffled(interrupted, after)[0])
        context, rest = shuffled(interrupted)
        assert make(Macs(keep=0.5)).select(graph, context) == expected
        assert (interrupted / RECORDS).read_text() == lines
        assert rest.calls == whole.calls - after // 2 * 2
    # Measurements on other batches are not used.
    context, other = shuffled(tmp_path / 'whole', seed=6)
    alone = make(Macs(keep=0.5)).select(graph, shuffled(tmp_path / 'other', seed=6)[0])
    assert make(Macs(keep=0.5)).select(graph, context) == alone and other.calls >= 6


TWO = """
import sys
from dataclasses import replace
from pathlib import Path
import torch.distributed as dist
from easypruner_plugins.eagle_eye import EagleEye
from easypruner_plugins.evolution import Evolution
from easypruner_plugins.macs import Macs
from easypruner.errors import BudgetError
from easypruner.testing import tiny_context
from tests.helpers.searching import plain_graph

class RankDependent(Macs):
    calls = 0

    def __call__(self, scores, graph, context):
        self.calls += 1
        if self.calls % 3 == rank:
            raise BudgetError('noise')
        return Macs(keep=0.5 + 0.2 * rank)(scores, graph, context)

    def delivered(self, masks, graph):
        return super().delivered(masks, graph) + 0.1 * rank * masks.kept('body.0.0')

rank, folder = int(sys.argv[1]), Path(sys.argv[2])
dist.init_process_group('gloo', init_method=f'file://{folder}/meet', rank=rank, world_size=2)
context = tiny_context(seed=rank)
for name, source in dict(
    eagle=EagleEye(RankDependent(keep=0.5), candidates=12, batches=1, seed=0),
    evolution=Evolution(RankDependent(keep=0.5), population=4, generations=3, batches=1, seed=0),
).items():
    masks = source.select(plain_graph(), replace(context, folder=folder / name))
    masks.save(folder / f'{name}{rank}.safetensors')
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_try_the_same_candidates(tmp_path: Path) -> None:
    def run() -> None:
        (tmp_path / 'meet').unlink(missing_ok=True)
        both = [
            subprocess.Popen(
                [sys.executable, '-W', 'ignore', '-c', TWO, str(rank), str(tmp_path)],
                cwd=Path(__file__).parents[3],
                stderr=subprocess.PIPE,
            )
            for rank in range(2)
        ]
        try:
            for process in both:
                _, reported = process.communicate(timeout=120)
                assert process.returncode == 0, reported.decode()
        finally:
            for process in both:
                process.kill()

    graph, found = plain_graph(), []
    for _ in range(2):
        run()
        for name in ('eagle', 'evolution'):
            first, second = (Masks.load(tmp_path / f'{name}{r}.safetensors') for r in range(2))
            assert first == second
            assert graph.cost(first).macs <= 0.5 * graph.cost().macs
            found.append(first)
            # The next search continues from half of the lines, which one process has read.
            records = tmp_path / name / RECORDS
            lines = records.read_text().splitlines(keepends=True)
            assert len(lines) == len(set(lines)) > 2
            records.write_text(''.join(lines[: len(lines) // 2]))
    assert found[:2] == found[2:]
