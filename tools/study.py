"""The command ``easypruner study`` as a script, for use in a checkout."""

from __future__ import annotations

import sys

from easypruner.cli.main import main

if __name__ == '__main__':
    sys.exit(main(['study', *sys.argv[1:]]))
