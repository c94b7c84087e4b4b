"""One run of a study, in a process of its own: ``python -m easypruner.study.job FILE``.

It ends when the process that started it does, so that a killed study leaves no runs behind.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from easypruner.base.files import write_json
from easypruner.errors import EasyPrunerError
from easypruner.study.runs import StudyRun

_ABANDONED = 3
_STOPPED = 130
_KILLED = 9


def run_study_run(job: Mapping[str, Any]) -> None:
    """Begin or continue a run of a study in this process.

    Args:
        job: the run, its work directory and the store, as JSON can represent it.

    Raises:
        EasyPrunerError: the user can fix the problem.
    """
    run, work_dir = StudyRun.from_json(job['run']), Path(job['work_dir'])
    from easypruner.pipeline.run import start
    from easypruner.pipeline.work_dir import RUN, Mode
    from easypruner.plugins import load_plugins
    from easypruner.study.settings import settings_of

    load_plugins(run.plugins)
    config = settings_of(run)
    plugins = load_plugins(run.plugins, config.get('custom_imports') or ())
    mode = Mode(resume=(work_dir / RUN).is_file())
    start(
        config,
        run.label,
        plugins.manager,
        mode,
        work_dir=work_dir,
        seed=run.seed,
        store=job['store'],
    )


def command_of(file: Path) -> list[str]:
    """Return the command that executes a job.

    Args:
        file: the file of the job.
    """
    return [sys.executable, '-m', 'easypruner.study.job', str(file)]


def begin(file: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start the process of a job.

    Args:
        file: the file of the job; the log and the error are written beside it.
        environment: variables that are added to those of this process.
    """
    file.with_suffix('.error.json').unlink(missing_ok=True)
    with file.with_suffix('.log').open('ab') as log:
        return subprocess.Popen(
            command_of(file),
            # It never gets input. When it ends, this process has ended.
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
            start_new_session=True,
        )


def problem_of(file: Path, code: int) -> str:
    """Return why the process of a job failed; '' if it did not.

    Args:
        file: the file of the job.
        code: the exit code of the process.
    """
    if code == 0:
        return ''
    try:
        return str(json.loads(file.with_suffix('.error.json').read_bytes())['error'])
    except (OSError, ValueError, KeyError, TypeError):
        return f'{_ending(code)}; see {str(file.with_suffix(".log"))!r}'


def _ending(code: int) -> str:
    if code == -_KILLED:
        return 'the process was killed, as the system does when the memory is full'
    return f'the process ended with exit code {code}'


def execute(file: str, environment: Mapping[str, str]) -> str:
    """Execute a job, wait for it, and return why it failed, or ''.

    Executors call this function on the machine that they have chosen.
    """
    path = Path(file)
    process = begin(path, environment)
    return problem_of(path, process.wait())


def _main(file: Path) -> int:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    return run_job(file)


def run_job(file: Path) -> int:
    """Execute a job in this process; return the exit code, and write the problem beside the file.

    Tracebacks are printed, and are thus in the log of the job.
    """
    log = str(file.with_suffix('.log'))
    problem, code = '', 0
    try:
        run_study_run(json.loads(file.read_bytes()))
    except KeyboardInterrupt:
        problem, code = 'it was interrupted', _STOPPED
    except EasyPrunerError as error:
        problem, code = str(error), 2
        if error.__cause__ is not None:
            # Code of a plugin, for example.
            from easypruner.engine.failures import TRACEBACK

            traceback.print_exc()
            problem = problem.replace(TRACEBACK, f'the traceback is in {log!r}')
    # The study goes on with its other runs, whatever went wrong here.
    except Exception as error:
        traceback.print_exc()
        problem, code = f'{type(error).__name__}: {error}; see {log!r}', 1
    if problem:
        print(f'easypruner: {problem}', file=sys.stderr)
        write_json(file.with_suffix('.error.json'), {'error': problem})
    return code


def _end_with_parent() -> None:
    """End this process when that which started it has ended."""
    # Not sys.stdin, whose lock would be taken when the interpreter shuts down.
    while os.read(0, 1):
        pass
    os._exit(_ABANDONED)


if __name__ == '__main__':
    sys.exit(_main(Path(sys.argv[1])))
