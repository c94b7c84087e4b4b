"""The command ``easypruner compare``: compares finished runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from easypruner.cli.options import PluginArguments, flag, option, positional


@dataclass(frozen=True, kw_only=True)
class CompareArguments(PluginArguments):
    """The arguments of ``easypruner compare``."""

    work_dirs: Sequence[str] = positional('folder of a finished run', nargs='+', metavar='WORK_DIR')
    out: str = option('folder to write; default: comparison', default='comparison', metavar='DIR')
    reference: str | None = option(
        'method that the others are compared with; default: the first', metavar='NAME'
    )
    overwrite: bool = flag('replace an earlier comparison')


def compare(arguments: CompareArguments) -> int:
    """Compare finished runs, print tables, and write comparison.json, report.html and pictures.

    Raises:
        EasyPrunerError: a run is missing, unfinished or damaged, or ``out`` is not empty.
    """
    # This module imports rich and numpy, and --help has to be fast.
    from easypruner.report.comparison_report import compare_runs

    manager = arguments.load_plugins().manager
    compare_runs(
        arguments.work_dirs,
        Path(arguments.out),
        overwrite=arguments.overwrite,
        reference=arguments.reference,
        manager=manager,
    )
    return 0
