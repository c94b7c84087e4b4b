"""The report of a study: what it says of methods, and that nothing in it can break out of it."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from easypruner.errors import EasyPrunerError
from easypruner.report import answer_files
from easypruner.report.details import FrozenChannels, LayerWidth, RunDetails, ScaleCounts
from easypruner.report.result import Row
from easypruner.report.scales import Scales
from easypruner.report.study_report import write
from easypruner.report.times import RunTime, RunTimes
from tests.helpers.run_results import make_rows, save_run

HOSTILE = '</style><script>alert(1)</script>"\'|`\n# $x$ \ud800'
VOID = {'meta', 'link', 'img', 'line', 'rect', 'circle', 'path', 'polyline'}


class Checked(HTMLParser):
    """Parses a page, and checks that tags are closed and that nothing is loaded or run."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        assert tag not in ('script', 'iframe', 'object', 'embed', 'form', 'base')
        for name, value in attrs:
            assert not name.startswith('on')
            if name in ('src', 'href'):
                assert (value or '').startswith(('data:', '#'))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def fill(run: Path, stages: Sequence[str] = ('baseline', 'finetune')) -> None:
    """Write all optional files of a run."""
    rng = np.random.default_rng(len(run.name))
    scales = Scales(rng.uniform(0.1, 1, 9), np.r_[0.0, rng.uniform(1e-7, 1e-4, 6)])
    layers = (LayerWidth(HOSTILE, 3, 5), LayerWidth('conv2', 8, 0))
    frozen = (FrozenChannels(HOSTILE, 10, 'head.fc'),)
    RunDetails(layers, ScaleCounts.of(scales, scales), frozen).save(run)
    RunTimes((RunTime(HOSTILE, 3.0, 2.0, 0.7, 0.6, 0.8),), (HOSTILE,)).save(run)
    save_file({'conv1': np.array([True, True, False, len(run.name) % 2 == 0])},
              run / 'masks.safetensors')  # fmt: skip
    config = {'stages': [{'type': 'Train', 'lr': len(run.name)}], HOSTILE: HOSTILE}
    (run / 'run.json').write_text(json.dumps({'config': config}))
    for name in ('pruned.pth', 'architecture.json'):
        (run / name).touch()
    for number, stage in enumerate(stages):
        folder = run / f'{number:02d}_{stage}' / 'start' / 'vis_data'
        folder.mkdir(parents=True)
        lines = [{'loss': 2.0 / e, 'epoch': e} for e in (1, 2, 3)]
        lines += [{'accuracy/top1': 50.0 + e, 'step': e} for e in (1, 2, 3)]
        text = '\n'.join(map(json.dumps, lines)) + '\n{"loss": NaN, "epoch": 3}\n[1]\n{broken'
        (folder / 'scalars.json').write_text(text)


def make_study(folder: Path, methods: dict[str, list[float]], **more: Any) -> None:
    """Write a study of methods: name -> final accuracy of each seed."""
    runs = []
    for number, (method, finals) in enumerate(methods.items()):
        for seed, final in enumerate(finals):
            run = save_run(folder, f'{number}_{seed}', name=method, seed=seed,
                           rows=make_rows(final=final))  # fmt: skip
            runs.append({'method': method, 'seed': seed, 'work_dir': run.name,
                         'budget': {'type': 'Macs', 'keep': 0.5}, 'swept': {},
                         'status': 'finished', 'error': None})  # fmt: skip
    content = {'name': 'study', 'runs': [*runs, *more.pop('runs', [])], **more}
    (folder / 'study.json').write_text(json.dumps(content))


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw no pictures, which takes a second."""
    monkeypatch.setattr(answer_files, 'draw_pictures', lambda comparison, folder: [])


SEEDS = [90.2, 91.1, 90.6, 89.9, 90.8]


def test_verdicts_of_a_study(tmp_path: Path) -> None:
    noise = [value + shift for value, shift in zip(SEEDS, [0.3, -0.4, 0.1, 0.2, -0.3], strict=True)]
    better = [value + 1.5 for value in noise]
    failed = {'method': 'b', 'seed': 5, 'work_dir': 'b_5', 'status': 'failed', 'error': 'OOM'}
    never = {'method': 'b', 'seed': 6, 'work_dir': 'b_6', 'status': 'waiting'}
    make_study(tmp_path, {'a': SEEDS, 'noise': noise, 'better': better}, runs=[failed, never])
    written = write(tmp_path)
    record = json.loads((tmp_path / 'comparison.json').read_text())
    verdicts = {d['line']: d['verdict'] for d in record['differences']}
    assert verdicts == {'noise': 'within noise', 'better': 'better'}
    assert [line['group'] for line in record['lines']] == ['Macs 0.5'] * 3
    assert [(run['status'], run['reason'][:3]) for run in record['missing']] == [
        ('failed', 'OOM'), ('waiting', 'the')]  # fmt: skip
    table = (tmp_path / 'comparison.md').read_text()
    assert '| better | a | 0, 1, 2, 3, 4 | +1.48 |' in table
    assert {path.suffix for path in written} == {'.json', '.md', '.html', '.png', '.svg'}
    assert all(path.is_file() for path in written)


@pytest.mark.usefixtures('no_pictures')
def test_budgets_are_compared_apart_and_with_the_reference(tmp_path: Path) -> None:
    runs = []
    for keep in (0.5, 0.3):
        for method in ('a', 'b'):
            run = save_run(tmp_path, f'{method}{keep}', name='config')
            runs.append({'method': method, 'work_dir': run.name, 'budget': f'Macs {keep}'})
    study = tmp_path / 'study.json'
    study.write_text(json.dumps({'runs': runs, 'reference': 'b'}))
    write(tmp_path)
    found = json.loads((tmp_path / 'comparison.json').read_text())['differences']
    assert {(d['line'], d['reference']) for d in found} == {
        ('a, Macs 0.5', 'b, Macs 0.5'), ('a, Macs 0.3', 'b, Macs 0.3')}  # fmt: skip
    assert all(d['verdict'] == 'too few seeds' for d in found)
    with pytest.raises(EasyPrunerError, match="no method is called 'aa'; did you mean 'a'"):
        write(tmp_path, reference='aa')


@pytest.mark.usefixtures('no_pictures')
def test_work_directories_without_a_study(tmp_path: Path) -> None:
    runs = [save_run(tmp_path, name) for name in 'ab']
    write(tmp_path / 'out', [*runs, tmp_path / 'absent'])
    listed = json.loads((tmp_path / 'out' / 'comparison.json').read_text())
    write(tmp_path)
    found = json.loads((tmp_path / 'comparison.json').read_text())
    assert [line['name'] for line in listed['lines']] == ['a', 'b']
    assert found['lines'] == listed['lines']
    assert (len(listed['missing']), found['missing']) == (1, [])
    with pytest.raises(EasyPrunerError, match='no finished run in it'):
        write(tmp_path / 'empty')


def test_a_study_without_results_says_so(tmp_path: Path) -> None:
    (tmp_path / 'study.json').write_text('{"runs": [{"method": "a", "work_dir": "a"}]}')
    write(tmp_path)
    assert 'No run has finished.' in (tmp_path / 'report.html').read_text()


def test_everything_in_a_page_is_escaped(tmp_path: Path) -> None:
    rows = (*make_rows()[:-1], Row('calibrated', 90.0, 9, 9, 9), make_rows()[-1])
    for name in ('one', 'other'):
        fill(save_run(tmp_path, name, name=HOSTILE + name, rows=rows, warnings=(HOSTILE,),
                      versions={HOSTILE: HOSTILE}))  # fmt: skip
    write(tmp_path)
    page = (tmp_path / 'report.html').read_text()
    text = ''.join(Checked(page).text)
    assert '<script>alert(1)</script>' in text
    for part in ('Training', 'Channels of each layer', 'Scales of kept', 'Frozen, and why',
                 'How to load it', 'Agreement of masks', 'stages[Train].lr'):  # fmt: skip
        assert part in text, part
    assert not re.search(r'https?:|//[a-z]|@import|url\(', page)
    cells = [
        line for line in (tmp_path / 'comparison.md').read_text().splitlines() if 'alert' in line
    ]
    assert all('<script' not in line.replace('\\<', '') for line in cells)


@pytest.mark.usefixtures('no_pictures')
@pytest.mark.parametrize('name', ['details.json', 'times.json', 'run.json', 'masks.safetensors'])
def test_damaged_files_of_a_run_do_not_stop_the_report(name: str, tmp_path: Path) -> None:
    run = save_run(tmp_path, 'a')
    fill(run)
    (run / name).write_bytes(b'{"layers": 3}' if name == 'details.json' else b'\xff[')
    write(tmp_path)
    Checked((tmp_path / 'report.html').read_text())
