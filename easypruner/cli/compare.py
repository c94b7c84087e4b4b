"""The command ``easypruner compare``: finished runs side by side."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from easypruner.cli.options import Commands, PluginOptions, add_command


@dataclass(frozen=True)
class CompareArguments:
    """The arguments of ``easypruner compare``.

    Attributes:
        work_dirs: folders of finished runs.
        out: folder to write.
        overwrite: replace an earlier comparison in it.
        plugins: which to load; they may add to the comparison.
    """

    work_dirs: list[str]
    out: str
    overwrite: bool
    plugins: PluginOptions


def add_compare(commands: Commands) -> None:
    """Add the command to the command line."""
    summary = 'set finished runs side by side'
    parser = add_command(commands, 'compare', CompareArguments, compare, summary)
    parser.add_argument('work_dirs', nargs='+', metavar='WORK_DIR', help='folder of a finished run')
    parser.add_argument(
        '--out', default='comparison', metavar='DIR', help='folder to write; default: comparison'
    )
    parser.add_argument('--overwrite', action='store_true', help='replace an earlier comparison')


def compare(arguments: CompareArguments) -> int:
    """Compare finished runs, print the table, write the picture and comparison.json.

    Raises:
        EasyPrunerError: a run is missing, unfinished or damaged, or ``out`` is not empty.
    """
    # rich and numpy, for which --help need not wait.
    from easypruner.report.comparison_report import compare_runs

    manager = arguments.plugins.load().manager
    compare_runs(
        arguments.work_dirs, Path(arguments.out), overwrite=arguments.overwrite, manager=manager
    )
    return 0
