"""Runs commands of EasyPruner in forked processes, which can be disturbed at a chosen moment.

A process that has imported everything once is forked for each command, which takes no time. It
reads requests from its standard input, a JSON object a line, and answers in the same way.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).parents[2]
_LIMIT = 240
"""The seconds after which a command counts as hanging."""


@dataclass(frozen=True)
class Request:
    """A command, and how it is disturbed.

    Attributes:
        arguments: the arguments of ``easypruner``.
        folder: the folder whose changes are counted.
        act: ``''`` for no disturbance, ``'kill'`` or ``'full'`` (the disk is full).
        change: the number of the change of the folder at which the disturbance acts.
        seconds: for ``'kill'`` without a change, the time after which it acts.
        lasting: whether a full disk stays full.
    """

    arguments: Sequence[str]
    folder: str
    act: str = ''
    change: int = -1
    seconds: float = 0.0
    lasting: bool = True


@dataclass(frozen=True)
class Outcome:
    """What a command did.

    Attributes:
        code: its exit code; negative for the signal that ended it.
        output: what it printed.
        changes: the number of changes of the folder, for a command without a disturbance.
    """

    code: int
    output: str
    changes: int = 0

    @property
    def is_clean(self) -> bool:
        """Whether it ended without a traceback."""
        return 'Traceback' not in self.output


class Zygote:
    """A process that is forked for each command."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, '-m', 'tests.helpers.zygote'],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
            env={**os.environ, 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': ''},
        )  # fmt: skip

    def run(self, arguments: Sequence[object], folder: Path, **disturbance: Any) -> Outcome:
        """Run a command to its end."""
        request = Request([str(a) for a in arguments], str(folder), **disturbance)
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(asdict(request)) + '\n')
        self._process.stdin.flush()
        return Outcome(**json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()


def _serve(requests: IO[str], answers: IO[str]) -> None:
    import easypruner.pipeline.run
    from easypruner.cli.main import main

    assert easypruner.pipeline.run
    for line in requests:
        request = Request(**json.loads(line))
        with tempfile.TemporaryFile('w+') as output, tempfile.TemporaryFile('w+') as count:
            child = os.fork()
            if child == 0:
                _act(request, main, output, count)
            _, status = os.waitpid(child, 0)
            for file in (output, count):
                file.seek(0)
            code = os.waitstatus_to_exitcode(status)
            outcome = Outcome(code, output.read(), int(count.read() or 0))
        answers.write(json.dumps(asdict(outcome)) + '\n')
        answers.flush()


def _act(request: Request, main: Any, output: IO[str], count: IO[str]) -> None:
    """Run a command in the child process, which ends here."""
    for stream in (1, 2):
        os.dup2(output.fileno(), stream)
    code = 1
    try:
        signal.alarm(_LIMIT)
        changes = _watch(request)
        code = main(list(request.arguments))
        count.write(str(next(changes)))
        count.flush()
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _watch(request: Request) -> Iterator[int]:
    """Count the changes of a folder, and disturb one; return the counter."""
    counter = iter(range(10**9))
    active = [True]
    if request.act == 'kill' and request.change < 0:
        # Without a handler, the signal of the timer ends the process at once.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, request.seconds)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if not active[0] or not _changes(event, arguments, request.folder):
            return
        number = next(counter)
        if request.act == 'kill' and number == request.change:
            os.kill(os.getpid(), signal.SIGKILL)
        due = number >= request.change if request.lasting else number == request.change
        # What is removed needs no space.
        if request.act == 'full' and due and event != 'os.remove':
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(arguments[0]))

    sys.addaudithook(hook)
    return counter


def _changes(event: str, arguments: tuple[Any, ...], folder: str) -> bool:
    """Tell whether an audited event changes a file in a folder."""
    if event == 'open':
        path, _, flags = arguments
        writes = flags is not None and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        return bool(writes) and isinstance(path, str | Path) and str(path).startswith(folder)
    if event in ('os.rename', 'os.remove', 'os.mkdir', 'os.link'):
        return any(
            str(path).startswith(folder) for path in arguments if isinstance(path, str | Path)
        )
    return False


if __name__ == '__main__':
    own = os.fdopen(os.dup(1), 'w')
    os.dup2(2, 1)
    _serve(sys.stdin, own)
