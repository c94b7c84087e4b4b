"""Running the scripts in benchmarks/, and reading the tables of their pages."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[2] / 'benchmarks'


def run(script: str, *arguments: str | Path) -> str:
    """Run a script, and return what it prints."""
    command = [sys.executable, str(BENCHMARKS / script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def table(page: str, head: str) -> list[list[str]]:
    """Return the cells of the rows under the header line that starts with ``head``."""
    lines = page[page.index(head) :].splitlines()[2:]
    rows = []
    for line in lines:
        if not line.startswith('|'):
            break
        rows.append([cell.strip() for cell in line.strip('|').split('|')])
    return rows
