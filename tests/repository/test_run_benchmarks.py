"""benchmarks/run.py: it has each benchmark, repeats no finished one, and names those that fail."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.helpers.benchmarks import BENCHMARKS


def test_each_script_is_run(module: Any) -> None:
    commands = [c for job in module('run').JOBS for c in (*job.commands, *job.quick)]
    scripts = {command.split()[0] for command in commands}
    assert all((BENCHMARKS / script).is_file() for script in scripts)
    runnable = {
        path.name
        for path in BENCHMARKS.glob('*.py')
        if "__name__ == '__main__'" in path.read_text()
    }
    # The first needs a GPU, and the last is a process of another script.
    assert runnable - scripts == {'gpu.py', 'run.py', 'rivals_job.py'}


def test_finished_commands_are_not_repeated(
    module: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, called = module('run'), []
    broken = {'b.py'}
    monkeypatch.setattr(
        run, '_run', lambda command, _: called.append(command) or command not in broken
    )
    jobs = [run.Job('one', ('a.py', 'b.py', 'c.py')), run.Job('two', ('d.py',))]
    record = tmp_path / 'cache' / 'record.json'
    assert run.run_all(jobs, record, None) == ['one']
    assert called == ['a.py', 'b.py', 'd.py']
    broken.clear()
    called.clear()
    assert run.run_all(jobs, record, None) == []
    assert called == ['b.py', 'c.py']
    called.clear()
    assert run.run_all(jobs, record, None, again=True) == []
    assert called == ['a.py', 'b.py', 'c.py', 'd.py']


def test_short_forms_write_only_where_they_are_told(module: Any) -> None:
    for job in module('run').JOBS:
        assert all('{out}' in command for command in job.quick), job.name
