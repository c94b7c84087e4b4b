"""The command line: one command in each file of this package.

Parsing imports no large package, so that --help is fast. Each command imports what it needs when it
runs.
"""

from __future__ import annotations

import argparse
import logging
import os
import shlex
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

from easypruner.base.disk import disk_problem
from easypruner.base.versions import __version__
from easypruner.cli.analyze import AnalyzeArguments, analyze
from easypruner.cli.benchmark import BenchmarkArguments, benchmark
from easypruner.cli.compare import CompareArguments, compare
from easypruner.cli.export import ExportArguments, export
from easypruner.cli.list_plugins import ListArguments, list_plugins
from easypruner.cli.list_store import StoreArguments, store
from easypruner.cli.new_plugin import NewPluginArguments, new_plugin
from easypruner.cli.openmmlab import AUTO
from easypruner.cli.options import add_command
from easypruner.cli.prune import PruneArguments, prune
from easypruner.cli.study import StudyArguments, study
from easypruner.errors import EasyPrunerError, Interrupted, nearest


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    The code is 0 for success, 2 for a problem that the user can fix (with one message on stderr),
    and 130 for an interrupt or SIGTERM (with how to go on). argparse itself exits with code 2 for
    wrong options.

    Args:
        argv: the arguments; None for those of the process.
    """
    given = sys.argv[1:] if argv is None else list(argv)
    parsed, unknown = _parser().parse_known_args(given)
    if unknown:
        _refuse(parsed.parser, unknown)
    # Imports of packages that others import log what only their authors can change.
    logging.getLogger('torch.utils._pytree').addFilter(_is_of_interest)
    try:
        return parsed.run(parsed)
    except EasyPrunerError as error:
        return _end(str(error), parsed.verbose)
    except OSError as error:
        problem = disk_problem(error)
        if problem is None:
            raise
        return _end(problem, parsed.verbose)
    except KeyboardInterrupt as interrupt:
        more = interrupt.arguments if isinstance(interrupt, Interrupted) else ()
        resumed = getattr(parsed, 'resume', None)
        # It is a flag of some commands.
        resumed = resumed if isinstance(resumed, str) else None
        _print(f'interrupted; {_how_to_go_on(given, more, resumed)}')
        return 130


def _refuse(parser: argparse.ArgumentParser, unknown: Sequence[str]) -> NoReturn:
    """End with the nearest option of a command for one that it does not have."""
    known = [name for action in parser._actions for name in action.option_strings]
    first = unknown[0].partition('=')[0]
    hint = f'; {nearest(first, known)}' if first.startswith('-') else ''
    parser.error(f'unrecognized arguments: {shlex.join(unknown)}{hint}')


def _is_of_interest(record: logging.LogRecord) -> bool:
    return 'register_constant' not in record.getMessage()


def _end(message: str, verbose: bool) -> int:
    """Print the message of an error, and return its exit code."""
    if verbose:
        traceback.print_exc()
    _print(message)
    return 2


def _print(message: str) -> None:
    # Under torchrun, all processes of a machine get the same error, and one prints it.
    if os.environ.get('LOCAL_RANK', '0') == '0':
        print(f'easypruner: {message}', file=sys.stderr)


def _how_to_go_on(given: Sequence[str], more: Sequence[str], resumed: str | None) -> str:
    """Return what to do after an interrupt.

    Args:
        given: the arguments of the command.
        more: the arguments with which a run goes on; empty if there is nothing to go on with.
        resumed: the value of --resume in the command.
    """
    if resumed not in (None, AUTO):
        return f'continue with: {shlex.join(["easypruner", *given])}'
    if 'LOCAL_RANK' in os.environ and more:
        return 'continue with the same command and ' + shlex.join(more)
    pairs = zip(['', *given], given, strict=False)
    again = [
        word
        for before, word in pairs
        if word not in ('--resume', '--overwrite') and (before, word) != ('--resume', AUTO)
    ]
    command = shlex.join(['easypruner', *(again if more else given), *more])
    return f'continue with: {command}' if more else f'nothing is lost; start again: {command}'


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='easypruner', description='Remove whole channels from PyTorch networks.'
    )
    parser.add_argument('--version', action='version', version=__version__)
    commands = parser.add_subparsers(metavar='COMMAND', required=True)
    add_command(commands, 'prune', PruneArguments, prune, 'run the stages of a config')
    summary = 'report what can be pruned in a network, what it costs, and what is frozen and why'
    add_command(commands, 'analyze', AnalyzeArguments, analyze, summary)
    add_command(commands, 'compare', CompareArguments, compare, 'compare finished runs')
    summary = 'compare methods over seeds, budgets and other values'
    add_command(commands, 'study', StudyArguments, study, summary)
    summary = 'write a network for runtimes such as OnnxRuntime, checked against torch'
    add_command(commands, 'export', ExportArguments, export, summary)
    summary = 'time networks side by side, each pruned one beside its unpruned one'
    add_command(commands, 'benchmark', BenchmarkArguments, benchmark, summary)
    summary = 'list the components that configs can use'
    add_command(commands, 'plugins', ListArguments, list_plugins, summary)
    summary = 'list or remove the finished stages that runs share'
    add_command(commands, 'store', StoreArguments, store, summary)
    summary = 'write a plugin to start from, and its test'
    add_command(commands, 'new-plugin', NewPluginArguments, new_plugin, summary)
    return parser


if __name__ == '__main__':
    sys.exit(main())
