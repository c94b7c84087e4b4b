"""The command line: easypruner prune, analyze, compare, plugins, new-plugin.

Parsing imports no large package, so that --help is fast. Each command imports what it needs when it
runs.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Sequence

from easypruner.base.versions import __version__
from easypruner.cli.analyze import AnalyzeArguments, analyze
from easypruner.cli.compare import CompareArguments, compare
from easypruner.cli.list_plugins import ListArguments, list_plugins
from easypruner.cli.new_plugin import NewPluginArguments, new_plugin
from easypruner.cli.options import add_command
from easypruner.cli.prune import PruneArguments, prune
from easypruner.errors import EasyPrunerError


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    The code is 0 for success, 2 for a problem that the user can fix (with one message on stderr),
    and 130 for an interrupt. argparse itself exits with code 2 for wrong options.

    Args:
        argv: the arguments; None for those of the process.
    """
    parsed = _parser().parse_args(argv)
    try:
        return parsed.run(parsed)
    except EasyPrunerError as error:
        if parsed.verbose:
            traceback.print_exc()
        # Under torchrun, all processes of a machine get the same error, and one prints it.
        if os.environ.get('LOCAL_RANK', '0') == '0':
            print(f'easypruner: {error}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print('easypruner: interrupted', file=sys.stderr)
        return 130


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
    summary = 'list the components that configs can use'
    add_command(commands, 'plugins', ListArguments, list_plugins, summary)
    summary = 'write a plugin to start from, and its test'
    add_command(commands, 'new-plugin', NewPluginArguments, new_plugin, summary)
    return parser


if __name__ == '__main__':
    sys.exit(main())
