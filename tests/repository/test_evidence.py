"""benchmarks/evidence.py: parts of its studies, short runs, and the page of their results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from easypruner.study.runs import runs_of
from easypruner.study.study_file import Study, read_study
from tests.helpers.benchmarks import BENCHMARKS, run, table

NAMES = [path.stem for path in sorted((BENCHMARKS / 'studies').glob('*.py'))]


@pytest.fixture
def studies() -> dict[str, Study]:
    return {name: read_study(BENCHMARKS / 'studies' / f'{name}.py') for name in NAMES}


def finished(parts: list[Any]) -> dict[str, Any]:
    """Return the results of a study of which parts have finished."""
    known: dict[str, Any] = {'lines': {}, 'tuned': []}
    for part in parts:
        for name in part.methods:
            line = known['lines'].setdefault(f'{name}, {part.keep:g}', {'seeds': {}})
            line['seeds'] |= {str(seed): {} for seed in part.seeds}
            known['tuned'].append({'method': name, 'key': 'a', 'value': 1})
    return known


def test_the_parts_are_all_runs_and_the_most_telling_ones_first(
    module: Any, studies: dict[str, Study]
) -> None:
    plan = module('evidence_plan')
    assert sorted(plan.STUDIES) == NAMES
    done: dict[str, list[Any]] = {name: [] for name in NAMES}
    first: list[Any] = []
    for phase in plan.PHASES:
        parts = list(plan.parts(phase, finished(done[phase.study])))
        done[phase.study] += parts
        first = first or parts
    for name, parts in done.items():
        runs = [(p.keep, m, n) for p in parts for m in p.methods for n in p.seeds]
        assert len(runs) == len(set(runs)) == len(runs_of(studies[name])) == plan.planned(name)
    assert first[0].methods == ('masksparsity',)
    assert {(part.study, part.keep, part.seeds) for part in first} == {
        ('methods_r20', 0.15, (0, 1, 2))
    }


def test_a_phase_has_only_what_is_asked_for_and_left(module: Any) -> None:
    plan = module('evidence_plan')
    phase, nothing = plan.Phase('methods_r20', (0.15,)), finished([])
    (part,) = plan.parts(phase, nothing, plan.Selection(['l1', 'no method of this study'], [3, 7]))
    assert (part.methods, part.seeds) == (('l1',), (3,))
    assert not list(plan.parts(phase, nothing, plan.Selection(['no method of this study'])))
    assert not list(plan.parts(phase, nothing, plan.Selection([], [7])))
    assert not list(plan.parts(phase, nothing, plan.Selection(budgets=[0.3])))
    assert list(plan.parts(phase, nothing, plan.Selection(budgets=[0.3, 0.15])))
    known = finished([plan.Part('methods_r20', 0.15, (0, 3), ('l1',))])
    parts = list(plan.parts(phase, known, plan.Selection(['l1', 'fpgm'])))
    assert {p.methods: p.seeds for p in parts} == {('l1',): (1, 2, 4), ('fpgm',): (0, 1, 2, 3, 4)}


def test_methods_that_are_tuned_share_a_part(module: Any) -> None:
    plan = module('evidence_plan')
    names = ('masksparsity', 'l1', 'taylor')
    known = finished([plan.Part('methods_r20', 0.15, (0,), names)])
    wanted = plan.Selection([*names, 'fpgm', 'greg'])
    parts = list(plan.parts(plan.Phase('methods_r20', (0.5,)), known, wanted))
    assert {frozenset(p.methods) for p in parts} == {
        frozenset(names), frozenset(['fpgm']), frozenset(['greg'])
    }  # fmt: skip


def test_what_trials_have_chosen_is_not_tuned_again(module: Any, tmp_path: Path) -> None:
    plan = module('evidence_plan')
    keys = ['stages.global_sparsity.regularizer.strength.reach', 'stages.finetune.lr']
    tuned = [dict(method='slimming', key=keys, value=[1.0, '50%']),
             dict(method='slimming', key=keys, value=[2.5, '10%'])]  # fmt: skip
    part = plan.Part('methods_r20', 0.5, (1,), ('slimming', 'l1'))
    file = tmp_path / 'part.py'
    file.write_text(part.text({'lines': {}, 'tuned': tuned}))
    slimming, l1 = read_study(file).methods
    assert slimming.tune is None and l1.tune is not None
    assert {key: slimming.options[key] for key in keys} == dict(
        zip(keys, [1.0, '50%'], strict=True)
    )


def test_methods_differ_in_nothing_but_their_stages(studies: dict[str, Study]) -> None:
    for name in ('methods_r20', 'methods_vgg6bn'):
        methods = studies[name].methods
        assert len(methods) == 12
        assert all(method.tune is not None and method.tune.trials == 4 for method in methods)
        assert all(method.options == methods[0].options for method in methods)


def test_the_page_says_what_differs(module: Any) -> None:
    def line(method: str, *finals: float) -> dict[str, Any]:
        row = {'baseline': 92.0, 'sparse': 90.5, 'pruned': 20.0, 'macs': 15.0, 'seconds': 60.0}
        seeds = {str(n): {**row, 'finetuned': f, 'final': f} for n, f in enumerate(finals)}
        return {'method': method, 'keep': 0.15, 'seeds': seeds}

    names = 'masksparsity', 'l1'
    given = [line(names[0], 91.0, 91.5, 91.0), line(names[1], 89.0, 89.5, 88.9)]
    lines = {f'{name}, 0.15': each for name, each in zip(names, given, strict=True)}
    trials = [['100%', 70.0], ['25%', 80.0], ['10%', 75.0]]
    tuned = dict(budget={'keep': 0.15}, key='lr', value='25%', trials=trials)
    pairs = [[['10%', 5.0], 70.0], [['10%', 20.0], 80.0], [['50%', 5.0], 60.0]]
    both = {**tuned, 'key': ['lr', 'reach'], 'value': ['10%', 20.0], 'trials': pairs}
    study = {'lines': lines, 'planned': 7,
             'tuned': [{**tuned, 'method': 'l1'}, {**both, 'method': 'masksparsity'}]}  # fmt: skip
    results = {'quick': False, 'machine': 'a machine', 'versions': {'torch': '2'}}
    page = module('evidence_page').write_page({**results, 'studies': {'methods_r20': study}})
    assert '6 of 7 runs have finished' in page and '### 85% of the MACs removed' in page
    first = table(page, '| method | seeds | baseline')[0]
    assert first == ['masksparsity', '3', '92.00 ± 0.00', '-1.50 ± 0.00', '90.50 ± 0.00',
                     '20.00 ± 0.00', '', '91.17 ± 0.29', '15.0 %', '1']  # fmt: skip
    assert 'at the end: worse: `l1`.' in page
    row = table(page, '| method | seeds | points')[0]
    assert row[2] == '-2.03' and row[4] == 'worse'
    assert table(page, '| method | removed') == [
        ['l1', '85%', 'lr = 25%', '70.0 to 80.0'],
        ['masksparsity', '85%', 'lr = 10% (smallest tried), reach = 20.0 (largest tried)',
         '60.0 to 80.0'],
    ]  # fmt: skip


@pytest.mark.slow
def test_short_runs_fill_the_page_and_are_not_repeated(tmp_path: Path) -> None:
    pytest.importorskip('mlxtend')
    arguments = ('--quick', '--studies', 'methods_vgg6bn', '--only', 'masksparsity', 'l1',
                 '--work-dir', tmp_path / 'work', '--store', tmp_path / 'store')  # fmt: skip
    printed = run('evidence.py', *arguments, '--seeds', '0')
    assert '[2/2]' in printed, printed
    page = (tmp_path / 'work' / 'evidence.md').read_text()
    assert 'They say nothing about methods' in page and '2 of 24 runs have finished' in page
    printed = run('evidence.py', *arguments)
    assert 'masksparsity, seed 0: done' not in printed and 'seed 1: done' in printed
    page = (tmp_path / 'work' / 'evidence.md').read_text()
    rows = {row[0]: row for row in table(page, '| method | seeds | baseline')}
    assert {name: row[1] for name, row in rows.items()} == {'masksparsity': '2', 'l1': '2'}
    assert rows['masksparsity'][3] and not rows['l1'][3]
