"""The times of a run's networks: their columns in the table, and their file."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pluggy
import pytest
from rich.console import Console

from easypruner import hookspecs
from easypruner.errors import EasyPrunerError
from easypruner.report.result import NetworkCost, Row, RunResult
from easypruner.report.run_report import print_run, report_run
from easypruner.report.times import TIMES, RunTime, RunTimes

TIMES_OF_RUN = RunTimes(
    (
        RunTime('Fast', before=10, after=4, ratio=0.4, low=0.38, high=0.42),
        RunTime('Slow', before=20, after=19.5, ratio=0.975, low=0.94, high=1.01),
    ),
    ('times: on a machine',),
)


def result(folder: Path) -> RunResult:
    rows = [('baseline', 100, 10), ('half', 60, 6), ('pruned', 50, 5), ('finetuned', 50, 5)]
    return RunResult(
        name='run',
        work_dir=folder,
        rows=tuple(Row(name, 90.0, macs, params, 1000) for name, macs, params in rows),
        budget=None,
        seed=0,
        config_hash='0',
        original=NetworkCost(100, 10, 1000),
    )


def printed(folder: Path, width: int) -> str:
    console = Console(file=io.StringIO(), width=width, highlight=False)
    report_run(result(folder), times=TIMES_OF_RUN, console=console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def cells(output: str, name: str, count: int) -> list[str]:
    """Return the last cells of the last row of this name."""
    line = [line for line in output.splitlines() if line.startswith(f' {name}')][-1]
    return re.split(r' {2,}', line.strip())[-count:]


def test_each_network_has_its_time_and_noise_has_no_share(tmp_path: Path) -> None:
    output = printed(tmp_path, 160)
    assert cells(output, 'baseline', 3) == ['100.0 %', '10 ms', '20 ms']
    assert cells(output, 'half', 1) == ['100.0 %']
    for name in ('pruned', 'finetuned'):
        assert cells(output, name, 4) == ['4 ms', '40.0 %', '19.5 ms', 'in noise']
    assert 'times: on a machine' in output and 'Warnings' not in output


def test_a_slower_network_is_a_warning(tmp_path: Path) -> None:
    slower = RunTimes((RunTime('Wrong', before=10, after=15, ratio=1.5, low=1.4, high=1.6),))
    console = Console(file=io.StringIO(), width=160, highlight=False)
    report_run(result(tmp_path), times=slower, console=console)
    assert isinstance(console.file, io.StringIO)
    output = console.file.getvalue()
    assert 'takes 150.0 % of the time' in output and "graph=dict(target='Wrong')" in output


def test_a_narrow_console_gets_a_table_of_its_own(tmp_path: Path) -> None:
    output = printed(tmp_path, 90)
    assert 'time of a pass' in output
    assert cells(output, 'finetuned', 4) == ['4 ms', '40.0 %', '19.5 ms', 'in noise']


def test_a_run_that_is_printed_again_has_them(tmp_path: Path) -> None:
    printed(tmp_path, 160)
    manager = pluggy.PluginManager(hookspecs.GROUP)
    manager.add_hookspecs(hookspecs)
    console = Console(file=io.StringIO(), width=160, highlight=False)
    print_run(RunResult.load(tmp_path), manager, console)
    assert isinstance(console.file, io.StringIO)
    assert cells(console.file.getvalue(), 'pruned', 4)[0] == '4 ms'
    assert RunTimes.load(tmp_path) == TIMES_OF_RUN


def test_a_run_without_times(tmp_path: Path) -> None:
    assert RunTimes.load(tmp_path) == RunTimes()


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / TIMES).write_text('{"times": [{"runtime": 3}], "facts": []}')
    with pytest.raises(EasyPrunerError, match=TIMES):
        RunTimes.load(tmp_path)
