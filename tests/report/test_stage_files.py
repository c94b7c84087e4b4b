"""What is read from the folders of stages, and what comparisons make of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from easypruner.report.answer import spent_seconds
from easypruner.report.comparison import compare
from easypruner.report.recipes import read_recipe, recipe_changes
from easypruner.report.stage_files import agreement, read_curves, read_stages, stage_masks
from tests.helpers.run_results import make_rows, save_run


def add_stage(
    run: Path, number: int, name: str, identity: str, seconds: float, weights: str
) -> None:
    folder = run / f'{number:02d}_{name}'
    folder.mkdir()
    content = {'stage': identity, 'seconds': {name: seconds}, 'checkpoint': 'w', 'rows': [1],
               'files': {'w': weights}}  # fmt: skip
    (folder / 'state.json').write_text(json.dumps(content))


def test_a_baseline_that_runs_share_counts_once(tmp_path: Path) -> None:
    for name in 'abc':
        run = save_run(tmp_path, name, name='m', config_hash='m', seed=ord(name),
                       seconds={'baseline': 10.0, 'finetune': 5.0},
                       rows=make_rows(baseline=98.0 if name != 'c' else 96.0))  # fmt: skip
        shared = name != 'c'
        add_stage(run, 0, 'baseline', 'x' if shared else 'y', 10.0, 'w1' if shared else 'w2')
        add_stage(run, 1, 'finetune', name, 5.0, name)
    comparison = compare([tmp_path / name for name in 'abc'])
    (line,) = comparison.lines
    assert line.baseline.mean == 97.0
    assert line.seconds.mean == 15.0
    assert spent_seconds(comparison) == (35.0, 10.0)


def test_equal_rows_of_other_seeds_are_not_shared(tmp_path: Path) -> None:
    runs = [save_run(tmp_path, f'{n}', name='m', config_hash='m', seed=n) for n in range(3)]
    assert compare(runs).lines[0].baseline.std == 0.0
    twice = [save_run(tmp_path, name, seed=1) for name in 'ab']
    assert [line.baseline.std for line in compare(twice).lines] == [None, None]


@pytest.mark.parametrize(
    ('seeds', 'hashes', 'lines'),
    [
        ((0, 1, 2), 'xyz', [(0, 1, 2)]),
        ((0, 0), 'xx', [(0, 0)]),
        ((0, 0, 1, 1), 'xyxy', [(0, 1), (0, 1)]),
    ],
)
def test_configs_that_differ_in_nothing_that_matters_are_seeds(
    seeds: tuple[int, ...], hashes: str, lines: list[tuple[int, ...]], tmp_path: Path
) -> None:
    runs = [
        save_run(tmp_path, f'{n}', name='m', seed=seed, config_hash=config, method_hash='m')
        for n, (seed, config) in enumerate(zip(seeds, hashes, strict=True))
    ]
    assert [line.seeds for line in compare(runs).lines] == lines


def test_curves_go_on_where_a_stage_was_resumed(tmp_path: Path) -> None:
    for start, epochs in (('1', (1, 2)), ('2', (2, 3))):
        folder = tmp_path / '00_train' / start / 'vis_data'
        folder.mkdir(parents=True)
        entries = [{'loss': 10 * int(start) + e, 'epoch': e, 'step': 9 * e} for e in epochs]
        scalars = [*entries, {'accuracy/top1': 50.0, 'step': epochs[0]}]
        (folder / 'scalars.json').write_text('\n'.join(map(json.dumps, scalars)))
    (tmp_path / '10_second').mkdir()
    (curve,) = read_curves(tmp_path)
    assert (curve.stage, curve.epochs) == ('train', 3)
    assert curve.loss == {1: 11.0, 2: 22.0, 3: 23.0}
    assert curve.accuracy == {1: 50.0, 2: 50.0}


def test_agreement_of_masks(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    one, other = ({'g': rng.random(4000) < keep} for keep in (0.3, 0.6))
    random = agreement(one, other)
    assert random is not None
    assert random.share == pytest.approx(random.chance, abs=0.03)
    assert random.chance == pytest.approx(0.3 * 0.6 + 0.7 * 0.4, abs=0.03)
    same = agreement(one, one)
    assert same is not None
    assert same.share == 1.0
    assert agreement(one, {'g': other['g'][:9]}) is None
    (tmp_path / '02_select').mkdir()
    save_file(one, tmp_path / '02_select' / 'masks.safetensors')
    (name, masks), *none = stage_masks(tmp_path)
    assert (name, none) == ('select', [])
    assert np.array_equal(masks['g'], one['g'])


def test_a_recipe_names_stages_so_that_an_inserted_one_moves_nothing(tmp_path: Path) -> None:
    def recipe(stages: list[object], **more: object) -> dict[str, str]:
        (tmp_path / 'run.json').write_text(json.dumps({'config': {'stages': stages, **more}}))
        return read_recipe(tmp_path)

    train, prune = {'type': 'Train', 'lr': 0.1, 'name': 'finetune'}, {'type': 'Prune'}
    one = recipe([prune, train], seed=1)
    other = recipe([{'type': 'Calibrate'}, prune, {**train, 'lr': 0.2}], seed=2)
    assert [(c.key, c.before, c.after) for c in recipe_changes(other, one)] == [
        ('stages[finetune].lr', '0.1', '0.2'),
        ('stages[Calibrate].type', '', "'Calibrate'"),
    ]


@pytest.mark.parametrize('content', ['', '[]', '{"stage": 1}', '{"stage": 1, "seconds": []}'])
def test_damaged_states_are_left_out(content: str, tmp_path: Path) -> None:
    (tmp_path / '00_a').mkdir()
    (tmp_path / '00_a' / 'state.json').write_text(content)
    assert read_stages(tmp_path) == ()
