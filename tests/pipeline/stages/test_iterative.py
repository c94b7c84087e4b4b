"""Iterative: rounds of the same stages, each with a part of the progress."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from easypruner.errors import ConfigError, Mistakes
from easypruner.pipeline.preflight import expand
from easypruner.pipeline.stages import Iterative
from easypruner.plugins import load_plugins
from tests.helpers.tiny import prune, summary, tiny_config, write_config

Content = dict[str, Any]
STEPS = st.integers(1, 12)


@pytest.fixture(autouse=True, scope='module')
def plugins() -> None:
    load_plugins()


def select(**arguments: Any) -> Content:
    source = dict(type='L1Norm', budget=dict(type='Macs', keep=0.5))
    return dict(type='SelectMask', source=source) | arguments


def rounds(steps: int, *each: Content, schedule: Any = 'linear') -> list[Content]:
    return list(Iterative(steps, list(each or [select()]), schedule).expand())


def shares(steps: int, schedule: Any) -> list[float]:
    """Return the progress after each step; check that each begins where the last one ended."""
    parts = [stage['part'] for stage in rounds(steps, schedule=schedule)]
    assert [done for done, _ in parts] == [0, *(share for _, share in parts[:-1])]
    return [share for _, share in parts]


class TestSchedules:
    @given(STEPS)
    def test_linear(self, n: int) -> None:
        assert shares(n, 'linear') == pytest.approx([i / n for i in range(1, n + 1)])

    @given(STEPS)
    def test_agp_is_the_paper_s_cubic(self, n: int) -> None:
        """s_t = s_f + (s_i - s_f) (1 - t / n)^3, from no sparsity to the final one."""
        start, final = 0.0, 0.8
        wanted = [final + (start - final) * (1 - t / n) ** 3 for t in range(1, n + 1)]
        assert [final * share for share in shares(n, 'agp')] == pytest.approx(wanted)

    @given(STEPS, st.floats(0.05, 0.95))
    def test_exponential_removes_the_same_share_of_the_remaining_network(
        self, n: int, keep: float
    ) -> None:
        left = [1 - (1 - keep) * share for share in [0, *shares(n, dict(exponential=keep))]]
        cuts = [after / before for before, after in itertools.pairwise(left)]
        assert cuts == pytest.approx([keep ** (1 / n)] * n)

    def test_exponential_alone_keeps_half(self) -> None:
        assert shares(5, 'exponential') == shares(5, dict(exponential=0.5))

    @given(STEPS, st.sampled_from(['linear', 'exponential', 'agp']))
    def test_all_increase_and_end_at_one(self, n: int, schedule: str) -> None:
        row = shares(n, schedule)
        assert row == sorted(set(row)) and row[-1] == 1

    def test_constant_has_the_whole_budget_each_time(self) -> None:
        assert all('part' not in stage for stage in rounds(3, schedule='constant'))


class TestExpansion:
    def test_names_are_numbered(self) -> None:
        stages = rounds(2, select(), dict(type='Prune'), dict(type='Train', name='regain'))
        names = ['select_mask_1', 'prune_1', 'regain_1', 'select_mask_2', 'prune_2', 'regain_2']
        assert [stage['name'] for stage in stages] == names

    def test_default_rows_are_those_of_the_last_round(self) -> None:
        stages = rounds(3, select(), dict(type='Prune'), dict(type='Calibrate'))
        cuts = [stage for stage in stages if stage['type'] != 'SelectMask']
        assert [stage.get('row', 'its own') for stage in cuts] == [None] * 4 + ['its own'] * 2

    def test_requested_rows_are_numbered(self) -> None:
        stages = rounds(3, select(), dict(type='Train', row='regained'))[1::2]
        assert [stage['row'] for stage in stages] == ['regained_1', 'regained_2', 'regained']

    def test_the_rest_of_a_stage_is_as_it_was(self) -> None:
        each = [select(), dict(type='Train', epochs=2, optim_wrapper=dict(optimizer=dict(lr=1)))]
        before = copy.deepcopy(each)
        _, train, _, last = rounds(2, *each)
        assert each == before
        for stage in (train, last):
            assert {k: v for k, v in stage.items() if k not in ('name', 'row')} == each[1]

    def test_nested_rounds_divide_the_progress(self) -> None:
        inner = dict(type='Iterative', steps=2, each=[select(), dict(type='Prune')])
        stages = [s for s in rounds(2, inner) if s['type'] == 'SelectMask']
        assert [s['part'] for s in stages] == [(0, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1)]
        names = [f'select_mask_{i}_{j}' for j in (1, 2) for i in (1, 2)]
        assert [s['name'] for s in stages] == names

    def test_soft_rounds_within_a_round_have_its_progress(self) -> None:
        soft = dict(type='Iterative', steps=2, schedule='constant', each=[select()])
        stages = rounds(2, soft)
        assert [stage['part'] for stage in stages] == [(0, 0.5), (0, 0.5), (0.5, 1), (0.5, 1)]

    def test_its_rounds_replace_it(self) -> None:
        config = dict(type='Iterative', steps=2, each=[select()])
        stages = expand([dict(type='Train'), config, dict(type='Report')], Mistakes())
        types = [planned.config['type'] for planned in stages]
        assert types == ['Train', 'SelectMask', 'SelectMask', 'Report']


@pytest.mark.parametrize(
    ('arguments', 'text'),
    [
        (dict(steps=0), 'steps=0 of Iterative'),
        (dict(steps=1.5), 'steps=1.5 of Iterative'),
        (dict(steps=True), 'steps=True of Iterative'),
        (dict(schedule='lineer'), "did you mean 'linear'"),
        (dict(schedule=dict(exponential=1)), 'exponential'),
        (dict(schedule=dict(exponential=True)), 'exponential'),
        (dict(schedule=dict(agp=0.5)), 'exponential=keep'),
        (dict(each=[]), 'the stages of one round'),
        (dict(each=dict(type='Train')), 'the stages of one round'),
        (dict(each=[dict(type='Train')]), 'does not have a SelectMask'),
        (dict(each=[select(), dict(type='Prun')]), r"each\[1\]: unknown stage 'Prun'.*'Prune'"),
        (dict(each=[select(), dict(type='Train', epoch=1)]), r"each\[1\].*'epochs'"),
        (dict(each=[select(), 'Train']), r'each\[1\]: expected a stage'),
    ],
)
def test_mistakes_are_reported(arguments: Content, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        Iterative(**dict(steps=2, each=[select()]) | arguments)


def gradual(**arguments: Any) -> Content:
    each = [select(), dict(type='Prune'), dict(type='Train', epochs=1, row='regained')]
    return tiny_config(
        stages=[
            dict(type='Train', name='baseline', epochs=1, row='baseline'),
            dict(type='Iterative', steps=3, each=each) | arguments,
            dict(type='Report'),
        ]
    )


@pytest.mark.in_ci
def test_a_run_prunes_by_its_schedule_and_can_be_resumed(tmp_path: Path) -> None:
    config = write_config(tmp_path, gradual(schedule='agp'))
    assert prune(config, tmp_path / 'run') == 0
    before = summary(tmp_path / 'run')
    rows = before['rows']
    names = ['baseline', 'regained_1', 'regained_2', 'pruned', 'regained']
    assert [row['name'] for row in rows] == names
    whole, *left = [row['macs'] for row in rows]
    wanted = [1 - 0.5 * share for share in shares(3, 'agp')]
    for macs, limit in zip([left[0], left[1], left[3]], wanted, strict=True):
        # Below the limit, and by no more than the costliest unit of this network.
        assert limit - 0.08 < macs / whole <= limit
    for stage in ('05_prune_2', '08_prune_3'):
        (tmp_path / 'run' / stage / 'state.json').unlink()
    assert prune(config, tmp_path / 'run', '--resume') == 0
    after = summary(tmp_path / 'run')
    assert [after[key] for key in ('rows', 'budget')] == [before[key] for key in ('rows', 'budget')]


def test_a_mistake_in_a_config_is_found_before_anything_is_written(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    content = gradual(schedule='cubic', steps=-1)
    content['stages'][0]['epoch'] = 3
    assert prune(write_config(tmp_path, content), tmp_path / 'run') == 2
    assert 'stages[1]: steps=-1' in capfd.readouterr().err
    assert not (tmp_path / 'run').exists()


def test_files_of_stages_beyond_the_hundredth_are_removed_when_an_earlier_one_runs_again(
    tmp_path: Path,
) -> None:
    stages = [dict(type='Evaluate'), dict(type='Report')]
    config = write_config(tmp_path, tiny_config(stages=stages))
    run = tmp_path / 'run'
    assert prune(config, run) == 0
    (run / '00_evaluate' / 'state.json').unlink()
    for name in ('100_prune', '12_train', '7_mine'):
        (run / name).mkdir()
    assert prune(config, run, '--resume') == 0
    assert {path.name for path in run.iterdir() if path.is_dir()} == {
        '00_evaluate', '01_report', '7_mine'
    }  # fmt: skip
