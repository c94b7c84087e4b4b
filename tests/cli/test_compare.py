"""The command that compares runs."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import pytest

from easypruner.cli.main import main
from tests.helpers.run_results import save_run, save_seeds


def test_command_writes_record_and_picture_and_prints(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finals = [97.1, 97.4, 97.9]
    runs = [*save_seeds(tmp_path, '[red]masked', finals), save_run(tmp_path, 'l1')]
    out = tmp_path / 'out'
    assert main(['compare', *map(str, runs), '--out', str(out)]) == 0
    text = capsys.readouterr().out
    assert f'{statistics.mean(finals):.2f} ± {statistics.stdev(finals):.2f}' in text
    assert '[red]masked' in text
    assert str(out / 'comparison.json') in text
    assert (out / 'accuracy_macs.png').read_bytes().startswith(b'\x89PNG')
    masked, l1 = json.loads((out / 'comparison.json').read_text())['lines']
    assert (masked['name'], masked['seeds']) == ('[red]masked', [0, 1, 2])
    assert masked['work_dirs'] == list(map(str, runs[:3]))
    assert masked['final']['mean'] == pytest.approx(statistics.mean(finals))
    assert masked['final']['std'] == pytest.approx(statistics.stdev(finals))
    assert masked['change']['mean'] == pytest.approx(statistics.mean(finals) - 98)
    assert masked['macs_left']['mean'] == pytest.approx(50)
    assert l1['final'] == {'mean': 97.5, 'std': None}
    assert l1['after_cut']['mean'] == pytest.approx(77.5)
    assert l1['seconds']['mean'] == pytest.approx(40.7)
    assert l1['calibrated'] is None
    assert {path.name for path in out.iterdir()} >= {'report.html', 'comparison.md'}
    assert main(['compare', *map(str, runs), '--out', str(out), '--overwrite',
                 '--reference', 'l2']) == 2  # fmt: skip
    assert "no method is called 'l2'" in capsys.readouterr().err


def test_output_goes_to_the_folder_comparison_by_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = save_run(tmp_path, 'a')
    monkeypatch.chdir(tmp_path)
    assert main(['compare', str(run)]) == 0
    assert (tmp_path / 'comparison' / 'comparison.json').is_file()
