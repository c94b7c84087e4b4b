"""benchmarks/grid_accuracy.py: its cuts, that it resumes, and the intervals on its page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.benchmarks import run, table


@pytest.fixture
def study(module: Any, tmp_path: Path) -> Any:
    """Return a function that makes a study on a few random images."""
    pytest.importorskip('mlxtend')
    accuracy, network = module('grid_accuracy'), module('grid_network')
    draw = torch.Generator().manual_seed(0)
    images = torch.randn(72, 1, 28, 28, generator=draw)
    data = network.Data(images, torch.arange(72) % 10, images[:20], torch.arange(20) % 10)

    def make(**setting: Any) -> Any:
        given = accuracy.Setting(width=8, epochs=1, sparse_epochs=1, finetune_epochs=1, **setting)
        return accuracy.Study(given, data, tmp_path / 'weights', tmp_path / 'grid.json')

    return make


def test_cuts_are_on_the_grid_and_finished_runs_are_skipped(
    study: Any, module: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = module('grid_accuracy').Job
    jobs = [
        job(seed, source, 0.5, grid)
        for source in ('L1Norm', 'BNScale')
        for seed in (0, 1)
        for grid in (1, 4)
    ]
    first = study()
    for seed in (0, 1):
        first.train_uncut(seed)
    for each in jobs:
        first.do(each)
    content = json.loads((tmp_path / 'grid.json').read_text(encoding='utf-8'))
    assert content['runs'].keys() == {each.name for each in jobs}
    assert len(content['trained']) == 6
    for each in jobs:
        run = content['runs'][each.name]
        assert 0.3 < run['macs'] <= 0.5 and 0 <= run['accuracy'] <= 100
        assert all(width % each.grid == 0 for width in run['widths'])
    capsys.readouterr()
    second = study()
    for each in jobs:
        second.do(each)
    assert capsys.readouterr().out == ''
    with pytest.raises(SystemExit, match='has results of the setting'):
        study(reach=1.0)
    rows = table(module('grid_page').page(content), '| source |')
    assert [row[:4] for row in rows] == [
        [f'`{source}`', '50 %', '2', str(grid)]
        for source in ('L1Norm', 'BNScale')
        for grid in (1, 4)
    ]


@pytest.mark.slow
def test_the_commands_run_on_few_images(tmp_path: Path) -> None:
    pytest.importorskip('mlxtend')
    results, out = tmp_path / 'grid.json', tmp_path / 'grid.md'
    run('grid_accuracy.py', 'run', '--shrunk', '--seeds', '0', '1', '--sources', 'L1Norm',
        '--work-dir', tmp_path, '--results', results)  # fmt: skip
    run('grid_accuracy.py', 'page', '--results', results, '--out', out)
    page = out.read_text(encoding='utf-8')
    assert len(table(page, '| source |')) == 8
    assert [row[0] for row in table(page, '| `round_to` | delivered | difference')] == [
        '4',
        '8',
        '16',
    ]


def test_differences_are_paired_and_intervals_are_those_of_student(module: Any) -> None:
    page = module('grid_page')
    runs = {}
    for seed, (free, coarse) in enumerate([(70.0, 71.0), (80.0, 81.5), (90.0, 92.0)]):
        for grid, accuracy in ((1, free), (8, coarse)):
            run = {'accuracy': accuracy, 'loss': 1.0, 'macs': 0.5, 'seconds': 1.0}
            runs[f'L1Norm | 0.5 | {grid} | {seed}'] = run
    for seed, grid in ((0, 1), (0, 8), (1, 1), (1, 8), (2, 1)):
        runs[f'BNScale | 0.5 | {grid} | {seed}'] = runs[f'L1Norm | 0.5 | {grid} | {seed}']
    runs['L1Norm | 0.25 | 1 | 0'] = runs['L1Norm | 0.5 | 1 | 0']
    found = page.by_condition(runs)
    assert ('L1Norm', 0.25, 1) not in found, 'a share with an unfinished grid'
    assert [list(found['BNScale', 0.5, grid]) for grid in (1, 8)] == [[0, 1], [0, 1]]
    interval = page.pooled(found, 8, 'accuracy')
    # 1.5 +- t(0.975, 2) * 0.5 / sqrt(3)
    assert (interval.mean, interval.half) == (1.5, pytest.approx(4.302653 * 0.5 / 3**0.5))
    assert interval.excludes_zero
    assert interval.text(1) == '+1.5 (+0.3 to +2.7)'
