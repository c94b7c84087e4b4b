"""The command that times networks side by side."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from easypruner.cli.main import main
from easypruner.testing import run_stages
from tests.cli.test_export import PYTHON


@pytest.mark.slow
def test_a_pruned_network_stands_beside_its_unpruned_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = dict(type='Random', budget=dict(type='Ratio', keep=0.5))
    run_stages([dict(type='SelectMask', source=source), dict(type='Prune', row='cut')], tmp_path)
    shutil.copytree(tmp_path / 'run', tmp_path / 'again')
    runs = [str(tmp_path / name) for name in ('run', 'again')]
    file = tmp_path / 'times.json'
    arguments = [
        'benchmark',
        *runs,
        '--runtime',
        'TorchEager',
        '--repeats',
        '3',
        '--batch',
        '1',
        '4',
    ]
    assert main([*arguments, '--json', str(file)]) == 0
    output = capsys.readouterr().out
    assert 'TorchEager, 1 thread' in output and f'wrote {file}' in output
    rows = json.loads(file.read_text())['rows']
    names = [f'{runs[0]} (unpruned)', *runs]
    assert [(row['network'], row['batch']) for row in rows] == [
        (name, batch) for batch in (1, 4) for name in names
    ]
    assert rows[0]['bytes'] > rows[1]['bytes']

    assert main([*arguments, '--json', str(file)]) == 2
    assert '--overwrite' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['networks.py:bare'], 'give the shape with --input-shape'),
        (['networks.py:both', '--runtime', 'OnxRuntime'], "did you mean 'OnnxRuntime'"),
        (['networks.py:both', '--json', '.'], 'is a folder'),
    ],
)
def test_mistakes(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path('networks.py').write_text(PYTHON)
    assert main(['benchmark', '--runtime', 'TorchEager', *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and 'Traceback' not in error


def test_a_batch_of_zero_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(['benchmark', 'resnet18', '--batch', '0'])
    assert 'not a whole number of at least 1' in capsys.readouterr().err
