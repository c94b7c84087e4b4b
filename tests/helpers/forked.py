"""Programs that must not leave anything in this process run in a copy of it.

A copy has the imported modules already. A new interpreter would take seconds to import torch.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import sys
import tempfile
import traceback
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import torch

_LIMIT = 300
"""The seconds after which a program is ended."""


def run_copy(program: Callable[[], object], folder: Path) -> tuple[int | None, str]:
    """Run a program in a copy of this process, with a folder as current folder and on the path.

    Returns:
        the exit code, and what the program printed, errors included.
    """
    with tempfile.NamedTemporaryFile('r', encoding='utf-8') as printed:
        process = multiprocessing.get_context('fork').Process(
            target=_run, args=(program, folder, Path(printed.name))
        )
        process.start()
        process.join(_LIMIT)
        if process.exitcode is None:
            process.kill()
            process.join()
        return process.exitcode, printed.read()


def printed_by(program: Callable[[], object], folder: Path) -> str:
    """Return what a program prints in a copy of this process; it must not fail."""
    code, text = run_copy(program, folder)
    assert code == 0, text
    return text


def printed_by_file(name: str, folder: Path) -> str:
    """Return what a file of Python prints as a program in its folder."""
    return printed_by(lambda: runpy.run_path(name, run_name='__main__'), folder)


def _run(program: Callable[[], object], folder: Path, printed: Path) -> None:
    # The threads of torch are not in the copy.
    torch.set_num_threads(1)
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    sys.argv[1:] = []
    with (
        printed.open('w', encoding='utf-8') as stream,
        redirect_stdout(stream),
        redirect_stderr(stream),
    ):
        try:
            program()
        except Exception:
            traceback.print_exc()
            sys.exit(1)
