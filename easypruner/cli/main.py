"""The command line: easypruner prune, analyze, compare, plugins, new-plugin.

Parsing needs nothing heavy, so that --help answers at once; each command imports what it needs
when it runs.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Sequence

from easypruner.base.versions import __version__
from easypruner.cli.analyze import add_analyze
from easypruner.cli.compare import add_compare
from easypruner.cli.list_plugins import add_plugins
from easypruner.cli.new_plugin import add_new_plugin
from easypruner.cli.prune import add_prune
from easypruner.errors import EasyPrunerError


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    0: done; 2: something the user gave cannot be used (one message on stderr); 130: interrupted.
    Wrong options end in argparse's own exit, with code 2 as well.

    Args:
        argv: the arguments; those of the process where None.
    """
    parsed = _parser().parse_args(argv)
    try:
        code: int = parsed.run(parsed)
    except EasyPrunerError as error:
        if parsed.verbose:
            traceback.print_exc()
        # Under torchrun all processes of a machine find the same mistake: one reports it.
        if os.environ.get('LOCAL_RANK', '0') == '0':
            print(f'easypruner: {error}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print('easypruner: interrupted', file=sys.stderr)
        return 130
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='easypruner',
        description='Prune whole channels of PyTorch networks, and compose how they are chosen.',
    )
    parser.add_argument('--version', action='version', version=__version__)
    commands = parser.add_subparsers(metavar='COMMAND', required=True)
    for add in (add_prune, add_analyze, add_compare, add_plugins, add_new_plugin):
        add(commands)
    return parser


if __name__ == '__main__':
    sys.exit(main())
