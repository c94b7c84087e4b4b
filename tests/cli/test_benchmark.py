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


@pytest.mark.slow
def test_what_was_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path('networks.py').write_text(PYTHON)
    runtime = ['--runtime', 'TorchEager']
    assert main(['export', 'networks.py:both', *runtime, '--out', 'exported']) == 0
    fast = [*runtime, '--repeats', '2', '--seconds', '0', '--no-memory']
    assert main(['benchmark', 'networks.py:both', 'exported', *fast, '--json', 'times.json']) == 0
    rows = json.loads(Path('times.json').read_text())['rows']
    assert [row['network'] for row in rows] == ['networks.py:both', 'exported']
    assert rows[1]['bytes'] == Path('exported/TorchEager/network.pt2').stat().st_size

    assert main(['benchmark', 'exported', *fast[2:], '--runtime', 'TorchChannelsLast']) == 2
    assert 'it was exported for TorchEager only' in capsys.readouterr().err
    Path('exported/TorchEager/network.pt2').unlink()
    assert main(['benchmark', 'exported', *fast]) == 2
    assert 'is missing; export the network again' in capsys.readouterr().err


@pytest.mark.slow
def test_an_onnx_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip('onnxruntime')
    monkeypatch.chdir(tmp_path)
    Path('networks.py').write_text(PYTHON)
    assert main(['export', 'networks.py:both', '--out', 'exported']) == 0
    shutil.copy('exported/OnnxRuntime/network.onnx', 'alone.onnx')
    fast = ['--repeats', '2', '--seconds', '0', '--no-memory', '--batch', '1', '3']
    assert main(['benchmark', 'exported/OnnxRuntime/network.onnx', *fast]) == 0
    assert main(['benchmark', 'alone.onnx', 'exported', *fast, '--input-shape', '1,3,6,6']) == 0
    assert 'alone.onnx' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['networks.py:bare'], 'give the shape with --input-shape'),
        (['networks.py:both', '--runtime', 'OnxRuntime'], "did you mean 'OnnxRuntime'"),
        (['networks.py:both', '--json', '.'], 'is a folder'),
        (['gone.onnx'], "there is no file 'gone.onnx'"),
        (['networks.onnx'], 'give it with --input-shape'),
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
    Path('networks.onnx').write_bytes(b'')
    assert main(['benchmark', '--runtime', 'TorchEager', *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and 'Traceback' not in error


def test_a_batch_of_zero_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(['benchmark', 'resnet18', '--batch', '0'])
    assert 'not a whole number of at least 1' in capsys.readouterr().err


def test_a_network_that_is_given_twice_is_compared_with_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path('networks.py').write_text(PYTHON)
    fast = ['--runtime', 'TorchEager', '--repeats', '2', '--seconds', '0', '--no-memory']
    twice = ['networks.py:both', 'networks.py:both']
    assert main(['benchmark', *twice, *fast, '--json', 'times.json']) == 0
    rows = json.loads(Path('times.json').read_text())['rows']
    assert [row['network'] for row in rows] == ['networks.py:both', 'networks.py:both #2']
    assert rows[1]['interval'][0] >= 0
