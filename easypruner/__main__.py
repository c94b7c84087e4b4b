"""The command line as ``python -m easypruner``."""

import sys

from easypruner.cli.main import main

if __name__ == '__main__':
    sys.exit(main())
