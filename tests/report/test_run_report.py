"""The report of one run: its output, its files, and their order."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pluggy
import pytest
from rich.console import Console

import easypruner
from easypruner import hookspecs
from easypruner.errors import PluginError
from easypruner.report.result import Artifact, BudgetResult, RunResult
from easypruner.report.run_report import report_run
from easypruner.report.scales import LayerChannels, Scales
from tests.helpers.run_results import make_result, make_rows

SCALES = Scales(np.array([0.5, 1.0]), np.array([1e-6]))


def printed(result: RunResult, width: int = 120, **options: object) -> str:
    """Report ``result`` to a string."""
    out = io.StringIO()
    console = Console(file=out, width=width, highlight=False)
    report_run(result, console=console, **options)  # type: ignore[arg-type]
    return out.getvalue()


def manager_returning(artifacts: list[object]) -> pluggy.PluginManager:
    """Return a plugin manager with one plugin, which adds ``artifacts`` to every report."""
    manager = pluggy.PluginManager(hookspecs.GROUP)
    manager.add_hookspecs(hookspecs)

    class Plugin:
        @easypruner.hookimpl
        def easypruner_report(self, runs: Sequence[RunResult]) -> Iterable[object]:
            return artifacts

    manager.register(Plugin(), name='mine')
    return manager


def test_everything_is_written_and_listed(tmp_path: Path) -> None:
    out = io.StringIO()
    layers = [LayerChannels('conv1', 3, 1)]
    written = report_run(
        make_result(tmp_path),
        scales=(SCALES, SCALES),
        layers=layers,
        files=[tmp_path / 'pruned.pth'],
        console=Console(file=out, width=40),
    )
    names = ['scales.png', 'channels.png', 'summary.json']
    assert written == tuple(tmp_path / name for name in names)
    assert all(path.stat().st_size > 0 for path in written)
    for path in (tmp_path / 'pruned.pth', *written):
        assert f'  {path}\n' in out.getvalue(), 'a path must not be broken over lines'
    assert RunResult.load(tmp_path) == make_result(tmp_path)


def test_run_without_batch_norms_or_budget_still_reports(tmp_path: Path) -> None:
    text = printed(make_result(tmp_path, scales=None, budget=None, seconds={}, warnings=()))
    assert [path.name for path in tmp_path.iterdir()] == ['summary.json']
    assert 'Warnings' not in text
    assert 'budget' not in text


def test_the_facts_a_reader_needs_are_there(tmp_path: Path) -> None:
    text = printed(make_result(tmp_path))
    assert 'asked 0.5, delivered 0.4977' in text
    assert 'before the cut 97.00 % (sparse), right after it 77.50 % (-19.50)' in text
    assert 'median 1.0e-06, 99th percentile 3.0e-05' in text
    assert 'the reach is short' in text
    final = next(line for line in text.splitlines() if 'finetuned' in line)
    shown = 'finetuned 97.50 % -0.50 20.4 M 50.0 % 132 k 48.6 % 554 KiB 50.3 %'
    assert ' '.join(final.split()) == shown


def test_every_limit_is_shown_with_what_was_delivered(tmp_path: Path) -> None:
    parts = (
        BudgetResult('Macs', 0.5, 0.4977),
        BudgetResult('Latency', 0.02, 0.0193, 0.0004, 'a machine'),
    )
    both = BudgetResult('Macs + Latency', 0.5, 0.4977, parts=parts)
    text = printed(make_result(tmp_path, budget=both))
    assert 'budget Macs: asked 0.5, delivered 0.4977\n' in text
    assert 'budget Latency: asked 0.02, delivered 0.0193 ± 0.0004 (a machine)\n' in text
    assert 'Macs + Latency' not in text
    assert RunResult.load(tmp_path).budget == both


@pytest.mark.parametrize('name', ['[red]', '[/]', '[link=x]y', ':smile:', 'a\\[b]'])
def test_names_are_shown_literally(tmp_path: Path, name: str) -> None:
    text = printed(make_result(tmp_path, name=name, warnings=(f'{name} is odd',)))
    assert text.splitlines()[0].strip() == name
    assert f'  {name} is odd\n' in text


def test_control_characters_cannot_reach_the_terminal(tmp_path: Path) -> None:
    text = printed(make_result(tmp_path, name='a\x1b[2Jb\x07', warnings=('\ud800\u202e',)))
    assert not set('\x1b\x07\ud800\u202e') & set(text)
    assert 'a\\x1b[2Jb\\x07' in text


def test_narrow_output_keeps_every_number(tmp_path: Path) -> None:
    text = printed(make_result(tmp_path, rows=make_rows(final=97.53)), width=80)
    assert '97.53 %' in text
    assert '554 KiB' in text
    assert max(map(len, text.split('Written')[0].splitlines())) <= 100


def test_artifacts_of_plugins_are_printed(tmp_path: Path) -> None:
    table = Artifact('Latency', ('run', 'ms'), (('[b]l1', '3.25'),))
    picture = Artifact('Roofline', figure=Path('roof.png'))
    text = printed(make_result(tmp_path), manager=manager_returning([table, picture]))
    assert '[b]l1' in text
    assert '3.25' in text
    assert '  roof.png\n' in text


def test_wrong_artifact_names_the_plugin_and_leaves_no_summary(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match=r'returned a list \[\{.name.: a str\}\].*mine'):
        printed(make_result(tmp_path), manager=manager_returning([{'name': 'x'}]))
    assert not (tmp_path / 'summary.json').exists()
