"""Latency: with a table, and in a runtime on whose clock time passes by a known law."""

from __future__ import annotations

import copy
import itertools
import json
import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from easypruner_plugins.latency import Latency
from easypruner_plugins.macs import Macs
from easypruner_plugins.params import Params
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import easypruner
from easypruner import Context, Limits, Masks, Scores
from easypruner.errors import BudgetError, ConfigError, EasyPrunerError
from easypruner.graph import ChannelGraph
from easypruner.plugins.registry import BUDGETS, build
from easypruner.runtimes import Session
from easypruner.runtimes.passes import MOST
from easypruner.runtimes.timing import Reading
from easypruner.runtimes.widths import Target
from easypruner.strategies.budgets.costs import Tightest
from easypruner.strategies.budgets.latency import Stopwatch, measure_table
from easypruner.strategies.budgets.latency_table import LatencyTable, Savings, Together
from easypruner.testing import example_inputs, randomized_network
from easypruner.testing.networks import Plain
from tests.helpers.clocked import CLOCK, Clock, Clocked, network_seconds, use_clock
from tests.helpers.networks import traced_network


class Wide(nn.Module):
    """A network with groups that are wide enough to meet a limit closely."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 96, 3), nn.ReLU(), nn.Conv2d(96, 48, 1)
        )
        self.head = nn.Linear(48, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).relu().mean((2, 3)))


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Clock:
    return use_clock(monkeypatch, tmp_path / 'cache')


GRAPH = traced_network(Plain)
SMALL, LARGE = GRAPH.groups
WIDE = traced_network(Wide)
WHOLE = network_seconds(WIDE.model, WIDE.example_inputs)


def some_scores(seed: int = 0, graph: ChannelGraph = GRAPH) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {n: torch.rand(g.size, generator=generator) for n, g in graph.groups.items()}


def whole_masks(graph: ChannelGraph) -> Masks:
    return Masks({name: torch.ones(group.size) > 0 for name, group in graph.groups.items()})


LAWS: dict[str, Callable[[float], float]] = {
    'as the layers alone': lambda share: 1.0,
    'slower in a network': lambda share: 1.5,
    'with a part that stays': lambda share: 1 + 0.4 / share,
    'worse when narrow': lambda share: 1.6 - 0.6 * share,
    'with a step': lambda share: 1.0 if share > 0.6 else 0.85,
    'much faster when narrow': lambda share: 0.65 + 0.35 * share**6,
}
"""Name -> by what a whole network is slower than its layers, by the share that is left."""


class TestMeasured:
    @pytest.mark.parametrize('keep', [0.75, 0.5])
    @pytest.mark.parametrize('law', LAWS)
    def test_the_share_of_really_pruned_networks_is_met(self, law: str, keep: float) -> None:
        runtime = Clocked(slower=LAWS[law])
        budget = Latency(keep=keep, runtime=runtime)
        masks = budget(some_scores(0, WIDE), WIDE, Context())
        ratio = runtime.share(WIDE, masks)
        assert 0.97 * keep <= ratio <= keep
        assert budget.delivered(masks, WIDE) == pytest.approx(ratio)
        assert (budget.kind, budget.asked) == ('Latency', keep)
        assert budget.spread == pytest.approx(0, abs=1e-9)
        assert budget.where.startswith('Clocked, 1 thread, ')

    def test_a_limit_in_seconds(self) -> None:
        budget = Latency(limit=0.6 * WHOLE, runtime=Clocked())
        masks = budget(some_scores(0, WIDE), WIDE, Context())
        assert 0.97 * 0.6 * WHOLE <= budget.delivered(masks, WIDE) <= 0.6 * WHOLE

    def test_the_lowest_scores_go(self) -> None:
        scores = some_scores(0, WIDE)
        masks = Latency(keep=0.6, runtime=Clocked())(scores, WIDE, Context())
        for name, mask in masks.items():
            assert mask.all() or scores[name][~mask].max() <= scores[name][mask].min()

    def test_few_networks_are_measured_and_layers_once(self, clock: Clock) -> None:
        for expected in (2, 4):
            Latency(keep=0.6, runtime=Clocked())(
                some_scores(0, WIDE), traced_network(Wide), Context()
            )
            assert clock.networks <= expected
        layers = clock.layers
        Latency(keep=0.5, runtime=Clocked())(some_scores(1, WIDE), traced_network(Wide), Context())
        assert clock.layers == layers + 1, 'the reference'

    def test_the_same_network_is_not_loaded_again(self, clock: Clock) -> None:
        graph = traced_network(Wide)
        budget = copy.deepcopy(Latency(keep=0.6, runtime=Clocked()))
        masks = budget(some_scores(0, graph), graph, Context())
        networks, passes = clock.networks, clock.passes
        again = copy.deepcopy(budget)
        again.delivered(masks, graph)
        assert again.delivered(whole_masks(graph), graph) == 1
        assert clock.networks == networks and clock.passes > passes

    def test_a_share_is_kept_under_a_varying_load(self, clock: Clock) -> None:
        runtime = Clocked()
        clock.load = itertools.cycle([1.0] * 7 + [1.3] * 11 + [1.1] * 5)
        masks = Latency(keep=0.6, runtime=runtime)(some_scores(0, WIDE), WIDE, Context())
        assert 0.97 * 0.6 <= runtime.share(WIDE, masks) <= 0.61

    @pytest.mark.in_ci
    def test_passes_take_turns_among_bindings_that_differ(self) -> None:
        class Placed(Clocked):
            """Each binding of a network takes longer than the one before."""

            def session(self, network: nn.Module, inputs: Any) -> Session:
                seconds, numbers = network_seconds(network, inputs), itertools.count(1)

                def bind(inputs: Any) -> Callable[[], tuple[Tensor, ...]]:
                    number = next(numbers)
                    return lambda: (CLOCK.advance(number * seconds), ())[1]

                return Session(bind)

        masks = {name: torch.arange(g.size) < 16 for name, g in WIDE.groups.items()}
        found = Stopwatch(WIDE, repeats=2 * MOST, warmup=0, runtime=Placed()).compare(masks)
        assert found.whole.median == pytest.approx((MOST + 1) / 2 * WHOLE)
        assert found.ratio.median == pytest.approx(Clocked().share(WIDE, masks))

    def test_a_limit_inside_the_noise_is_refused(self, clock: Clock) -> None:
        random = torch.Generator().manual_seed(0)
        clock.load = (1 + float(torch.rand((), generator=random)) for _ in itertools.count())
        with pytest.raises(BudgetError, match=r'too close to the whole .* ± .*more repeats'):
            Latency(keep=0.98, runtime=Clocked())(some_scores(0, WIDE), WIDE, Context())

    @pytest.mark.parametrize('limit', [{'keep': 0.001}, {'keep': 0.0}, {'limit': 1e-12}])
    def test_an_infeasible_limit_reports_what_is_feasible(self, limit: dict[str, float]) -> None:
        runtime = Clocked()
        least = Masks({n: torch.arange(g.size) < 1 for n, g in WIDE.groups.items()})
        lowest = runtime.share(WIDE, least) * (WHOLE if 'limit' in limit else 1)
        with pytest.raises(BudgetError, match=re.escape(f'but {lowest:.4g} ± ')):
            Latency(**limit, runtime=runtime)(some_scores(0, WIDE), WIDE, Context())

    @pytest.mark.parametrize('limit', [{'keep': 1.0}, {'limit': 1.0}, {'limit': WHOLE * 1.01}])
    def test_a_network_that_is_fast_enough_stays_whole(self, limit: dict[str, float]) -> None:
        budget = Latency(**limit, runtime=Clocked())
        assert budget(some_scores(0, WIDE), WIDE, Context()).removed_units == 0

    def test_limits_of_groups_are_kept_to(self) -> None:
        graph = traced_network(Wide, limits=Limits(min_units=8, round_to=8))
        masks = Latency(keep=0.7, runtime=Clocked())(some_scores(0, graph), graph, Context())
        for name, mask in masks.items():
            assert masks.kept(name) in graph.limits[name].widths(mask.numel())

    def test_the_model_stays_unchanged(self) -> None:
        model = randomized_network(Plain).train()
        graph = easypruner.trace(model, example_inputs())
        before = copy.deepcopy(model.state_dict())
        budget = Latency(keep=0.6, runtime='TorchEager', repeats=5)
        masks = Masks({name: torch.arange(g.size) < 2 for name, g in graph.groups.items()})
        budget.delivered(masks, graph)
        assert model.training
        assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
        assert [group.size for group in graph.groups.values()] == [8, 12]

    @pytest.mark.parametrize('limit', [{'keep': 0.5}, {'limit': 0.5 * WHOLE}])
    def test_in_steps(self, limit: dict[str, float]) -> None:
        graph = traced_network(Wide)
        whole = Latency(**limit, runtime=Clocked())
        assert whole.reference(graph) is None, 'seconds of another time do not compare'
        for done, share in ((0.0, 0.5), (0.5, 1.0)):
            budget = whole.partial(done, share)
            masks = budget(some_scores(1, graph), graph, Context())
            assert masks.removed_units
            easypruner.prune(graph.model, masks, graph=graph)
        left = network_seconds(graph.model, graph.example_inputs)
        assert 0.94 * 0.5 * WHOLE < left <= 0.5 * WHOLE

    def test_with_others_the_tightest_counts(self) -> None:
        for other in (Macs(keep=0.3), Macs(keep=0.9)):
            budget = Tightest([Latency(keep=0.6, repeats=5, runtime=Clocked()), other])
            masks = budget(some_scores(0, WIDE), WIDE, Context())
            latency, macs = budget.parts()
            assert latency.delivered(masks, WIDE) <= 0.6
            assert macs.delivered(masks, WIDE) <= macs.asked

    def test_the_target_of_the_graph_is_the_default(self) -> None:
        graph = traced_network(Wide)
        graph.target = Target(Clocked(threads=2))
        budget = Latency(keep=0.6)
        budget.delivered(whole_masks(graph), graph)
        assert budget.where.startswith('Clocked, 2 threads')
        other = Latency(keep=0.6, runtime=dict(type='TorchEager', threads=1), repeats=5)
        other.delivered(whole_masks(graph), graph)
        assert other.where.startswith(f'TorchEager, torch {torch.__version__}'.partition('+')[0])


class TestRank:
    """Groups with the same scores, of which one costs more."""

    def kept(self, rank: str) -> dict[str, float]:
        scores = {n: torch.linspace(0.1, 1, g.size) for n, g in WIDE.groups.items()}
        budget = Latency(keep=0.6, runtime=Clocked(), rank=rank)  # type: ignore[arg-type]
        masks = budget(Scores(scores), WIDE, Context())
        assert budget.delivered(masks, WIDE) <= 0.6
        return {name: float(mask.double().mean()) for name, mask in masks.items()}

    def test_units_that_cost_more_for_their_score_go_first(self) -> None:
        by_score, by_time = self.kept('score'), self.kept('per_latency')
        cost = {name: c.macs / WIDE.groups[name].size for name, c in WIDE.group_costs().items()}
        dear, cheap = max(cost, key=lambda n: cost[n]), min(cost, key=lambda n: cost[n])
        assert by_score[dear] == pytest.approx(by_score[cheap], abs=0.1)
        assert by_time[dear] < by_score[dear] < by_time[cheap]

    def test_where_time_goes_with_macs_both_ranks_are_the_same(self) -> None:
        by_macs, by_time = self.kept('per_macs'), self.kept('per_latency')
        assert by_macs == pytest.approx(by_time, abs=0.03)

    def test_scores_below_zero_go_before_all_others(self) -> None:
        scores = {n: torch.linspace(-1, 1, g.size) for n, g in WIDE.groups.items()}
        budget = Latency(keep=0.8, runtime=Clocked(), rank='per_latency')
        masks = budget(Scores(scores), WIDE, Context())
        assert all(masks[n][scores[n] > 0.05].all() for n in masks) and masks.removed_units

    def test_a_table_has_no_time_of_layers(self, table: Path) -> None:
        with pytest.raises(ConfigError, match=r"rank='per_latency' and table=.* leave the table"):
            Latency(keep=0.5, table=table, rank='per_latency')


def table_of(graph: ChannelGraph = GRAPH) -> LatencyTable:
    """Return a table with which half the time can be saved, most of it in the larger group."""
    return LatencyTable(
        seconds=0.01,
        spread=1e-4,
        repeats=20,
        machine={'processor': 'of the test'},
        groups={
            SMALL: Savings(8, (1, 4), (2e-3, 1e-3), (1e-5, 1e-5)),
            LARGE: Savings(12, (2, 6), (3e-3, 2e-3), (1e-5, 1e-5)),
        },
        together=Together((3e-3, 5e-3), (2.5e-3, 4e-3), (1e-5, 1e-5)),
    )


@pytest.fixture(scope='module')
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp('tables') / 'table.json'
    table_of().save(path)
    return path


class TestTable:
    @pytest.mark.parametrize(
        ('small', 'large', 'expected'),
        [
            (8, 12, 0.01),
            (4, 12, 0.01 - 1e-3 * 2.5 / 3),  # 1 ms of 3 ms, which together save 2.5 ms
            (8, 1, 0.01 - 2.5e-3),  # fewer units than measured do not save more
            (4, 6, 0.01 - 2.5e-3),
            (1, 2, 0.01 - 4e-3),
            (6, 12, 0.01 - 0.5e-3 * 2.5 / 3),  # half way between 4 and 8 units
            (1, 6, 0.01 - (2.5e-3 + 1.5e-3 / 2)),  # 4 ms: half way between 3 and 5
        ],
    )
    def test_savings_are_interpolated_and_added_up(
        self, small: int, large: int, expected: float
    ) -> None:
        masks = {SMALL: torch.arange(8) < small, LARGE: torch.arange(12) < large}
        assert table_of().predict(GRAPH, masks) == pytest.approx(expected)

    @settings(deadline=None, max_examples=40)
    @given(seed=st.integers(0, 1000), keep=st.floats(0.6, 1))
    def test_the_limit_is_met_and_one_more_unit_would_exceed_it(
        self, table: Path, seed: int, keep: float
    ) -> None:
        scores = some_scores(seed)
        budget = Latency(keep=keep, table=table)
        masks = budget(scores, GRAPH, Context())
        known = table_of()
        assert known.predict(GRAPH, masks) <= keep * 0.01 + 1e-12
        assert budget.delivered(masks, GRAPH) == known.predict(GRAPH, masks) / 0.01
        assert (budget.kind, budget.spread) == ('Latency by table', None)
        for name, mask in masks.items():
            if mask.all():
                continue
            assert scores[name][~mask].max() <= scores[name][mask].min()
            one_back = dict(masks) | {name: mask.clone()}
            one_back[name][int((~mask).nonzero()[0])] = True
            assert known.predict(GRAPH, one_back) > keep * 0.01

    def test_nothing_is_measured(self, table: Path, clock: Clock) -> None:
        budget = Latency(limit=0.008, table=str(table))
        masks = budget(some_scores(), GRAPH, Context())
        assert budget.delivered(masks, GRAPH) <= 0.008
        assert clock.passes == 0

    def test_an_infeasible_limit_reports_what_is_feasible(self, table: Path) -> None:
        with pytest.raises(BudgetError, match=r'limit is 0\.005 seconds, but 0\.006 is the lowest'):
            Latency(keep=0.5, table=table)(some_scores(), GRAPH, Context())

    def test_with_others_all_are_met_together(self, table: Path) -> None:
        budget = Tightest([Latency(keep=0.8, table=table), Params(keep=0.8)])
        masks = budget(some_scores(), GRAPH, Context())
        assert all(part.delivered(masks, GRAPH) <= 0.8 for part in budget.parts())

    def test_noise_is_smoothed_so_that_fewer_units_never_save_less(self) -> None:
        savings = Savings(8, (1, 2, 4, 6), (1e-3, 3e-3, -1e-3, 1e-4), (0.0,) * 4)
        assert list(savings.by_units[[0, 1, 2, 4, 6, 8]]) == [3e-3, 3e-3, 3e-3, 1e-4, 1e-4, 0]

    def test_after_a_cut_the_same_table_holds(self, table: Path) -> None:
        model = randomized_network(Plain)
        graph = easypruner.trace(model, example_inputs())
        whole = Latency(keep=0.7, table=table)
        reference = whole.reference(graph)
        for step in range(3):
            budget = whole.partial(step / 3, (step + 1) / 3, reference)
            easypruner.prune(model, budget(some_scores(2, graph), graph, Context()), graph=graph)
        left = table_of().predict(graph)
        assert 0.0065 < left <= 0.007
        everything = Masks({n: torch.ones(g.size) > 0 for n, g in graph.groups.items()})
        assert budget.delivered(everything, graph) == pytest.approx(left / 0.01)


def seconds_left(masks: Mapping[str, Tensor]) -> float:
    return Clocked().share(WIDE, masks) * WHOLE


class TestMeasuringATable:
    def test_it_equals_the_clock_and_loads_again(self, tmp_path: Path) -> None:
        path, runtime = tmp_path / 'new' / 'table.json', Clocked()
        table = measure_table(WIDE, path, repeats=5, warmup=0, runtime=runtime)
        assert LatencyTable.load(path) == table
        assert table.seconds == pytest.approx(WHOLE)
        name = next(iter(WIDE.groups))
        first = table.groups[name]
        assert (first.units, first.kept) == (64, (1, 16, 32, 48))
        for kept, saved in zip(first.kept[1:], first.saved[1:], strict=True):
            assert saved == pytest.approx(WHOLE - seconds_left({name: torch.arange(64) < kept}))
        # If all groups are cut equally, the table is exact, although the sum is not.
        for share in (0.75, 0.5, 0.25):
            masks = {n: torch.arange(g.size) < share * g.size for n, g in WIDE.groups.items()}
            assert table.predict(WIDE, masks) == pytest.approx(seconds_left(masks))
        assert sum(s.saved[0] for s in table.groups.values()) > table.together.saved[-1]
        assert {'processor', 'threads', 'torch', 'device'} <= table.machine.keys()
        assert table.machine['runtime'].startswith('Clocked')

    def test_in_torch_each_group_is_measured(self, tmp_path: Path) -> None:
        graph = traced_network(Plain, limits=Limits(min_units=3, round_to=3))
        table = measure_table(graph, tmp_path / 'table.json', repeats=5, warmup=0)
        assert [s.kept for s in table.groups.values()] == [(3, 6), (3, 6, 9)]
        assert table.machine['runtime'] == 'torch'

    def test_a_group_of_one_unit(self, tmp_path: Path) -> None:
        model = randomized_network(Plain)
        graph = easypruner.trace(model, example_inputs())
        easypruner.prune(model, {SMALL: torch.arange(8) < 1}, graph=graph)
        table = measure_table(graph, tmp_path / 'table.json', repeats=5, runtime=Clocked())
        assert table.groups[SMALL] == Savings(1, (), (), ())
        assert LatencyTable.load(tmp_path / 'table.json') == table


@pytest.mark.parametrize('share', [2.0, -1.0, 1.01, float('nan'), True, '0.5', None])
def test_invalid_shares(share: Any, tmp_path: Path, clock: Clock) -> None:
    with pytest.raises(
        ConfigError, match=r'shares=.* of measure_table; expected a number from 0 to 1'
    ):
        measure_table(GRAPH, tmp_path / 'table.json', shares=(0.5, share))
    assert not clock.passes and not any(tmp_path.iterdir())


def test_a_network_that_stores_computed_tensors_is_copied() -> None:
    model = randomized_network(Plain)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', FutureWarning)
        layer = nn.utils.weight_norm(model.body[0][0])
    model.train()(example_inputs()).sum().backward()
    held = layer.weight
    graph = easypruner.trace(model, example_inputs())
    stopwatch = Stopwatch(graph, repeats=2, runtime=Clocked())
    comparison = stopwatch.compare({next(iter(graph.groups)): torch.arange(8) < 3})
    assert comparison.ratio.median < 1
    assert layer.weight is held and held.grad_fn is not None


def test_a_group_cut_to_a_single_channel_is_still_in_the_table(table: Path) -> None:
    model = randomized_network(Plain)
    graph = easypruner.trace(model, example_inputs())
    easypruner.prune(model, {SMALL: torch.arange(8) < 1}, graph=graph)
    retraced = easypruner.trace(model, example_inputs())
    assert list(retraced.groups) == [LARGE]
    known = LatencyTable.load(table)
    assert known.predict(retraced) == known.predict(graph) < known.seconds


def damaged(path: str, value: Any, file: Path) -> Path:
    """Write a good table with one entry replaced (``...`` deletes it)."""
    content = json.loads((file.parent / 'table.json').read_text())
    *parents, last = [SMALL if key == 'GROUP' else key for key in path.split('/')]
    target = content
    for key in parents:
        target = target[key]
    if value is ...:
        del target[last]
    else:
        target[last] = value
    file.write_text(json.dumps(content))
    return file


@pytest.mark.parametrize(
    ('path', 'value', 'field'),
    [
        ('format', 'other', 'format'),
        ('seconds', -1, 'seconds'),
        ('seconds', float('nan'), 'seconds'),
        ('repeats', 0, 'repeats'),
        ('machine', [], 'machine'),
        ('groups', ..., 'groups'),
        ('groups/GROUP/units', 'eight', f'groups.{SMALL}.units'),
        ('groups/GROUP/kept', [4, 1], f'groups.{SMALL}.kept'),
        ('groups/GROUP/kept', [1, 8], f'groups.{SMALL}.kept'),
        ('groups/GROUP/kept', [0, 4], f'groups.{SMALL}.kept[0]'),
        ('groups/GROUP/saved', [1e-3], f'groups.{SMALL}.saved'),
        ('groups/GROUP/spread', [1e-3, -1], f'groups.{SMALL}.spread[1]'),
        ('together/added', [2, 1], 'together.added'),
        ('together/saved', ..., 'together.saved'),
    ],
)
def test_damage_is_reported_by_file_and_field(
    table: Path, path: str, value: Any, field: str
) -> None:
    file = damaged(path, value, table.parent / 'damaged.json')
    with pytest.raises(EasyPrunerError) as caught:
        Latency(keep=0.8, table=file).check()
    assert repr(field) in str(caught.value) and str(file) in str(caught.value)


def test_a_missing_table_or_one_that_is_not_json(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match='measure_table'):
        Latency(keep=0.5, table=tmp_path / 'none.json').check()
    (tmp_path / 'text.json').write_text('{')
    with pytest.raises(EasyPrunerError, match='cannot be read as JSON'):
        Latency(keep=0.5, table=tmp_path / 'text.json').check()


def test_a_table_of_another_network_is_refused(table: Path) -> None:
    known = table_of()
    groups = dict(known.groups)
    wider = groups | {SMALL: Savings(6, (1,), (1e-3,), (0.0,))}
    renamed = {f'{n}x': s for n, s in groups.items()}
    more = groups | {'other': groups[SMALL]}
    for changed, message in (
        (wider, f'group {SMALL!r} has 8 units, but the latency table has 6'),
        (renamed, f"table does not have group {SMALL!r}; did you mean '{SMALL}x'"),
        (more, "has group 'other', which this network does not have"),
    ):
        file = table.parent / 'other.json'
        LatencyTable(0.01, 0.0, 5, {}, changed, known.together).save(file)
        with pytest.raises(EasyPrunerError, match=re.escape(message)):
            Latency(keep=0.8, table=file)(some_scores(), GRAPH, Context())


@pytest.mark.parametrize(
    'arguments',
    [{}, {'keep': 0.5, 'limit': 1}, {'keep': 2}, {'limit': -1}, {'limit': float('nan')},
     {'keep': 0.5, 'repeats': 1}, {'keep': 0.5, 'repeats': 2.5}, {'keep': 0.5, 'warmup': -1},
     {'keep': 0.5, 'rank': 'per_time'}, {'keep': 0.5, 'clock': 'sun'}, {'keep': 0.5, 'runtime': 3}],
)  # fmt: skip
def test_arguments_out_of_range_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Latency(**arguments)


def test_an_unknown_runtime_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"unknown runtime 'OnnxRuntim'; did you mean 'OnnxR"):
        Latency(keep=0.5, runtime='OnnxRuntim')
    budget = build(BUDGETS, dict(type='Latency', keep=0.5, runtime='TorchEager'))
    assert budget.runtime.name == 'TorchEager'


def test_a_reading_is_median_and_median_absolute_deviation() -> None:
    reading = Reading.of([3.0, 1.0, 10.0, 2.0, 4.0])
    assert (reading.median, reading.spread, reading.count) == (3.0, 1.0, 5)
    assert Reading.of([1.0, 1.2] * 200).noise < Reading.of([1.0, 1.2] * 2).noise / 9
