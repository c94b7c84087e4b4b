"""Files of users that are run as Python runs a script: they import modules that are beside them."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path


def import_beside(file: Path) -> None:
    """Let a file import the modules that are in its folder.

    The folder stays on the path of Python, because functions of the file may import later. It is
    the last one, so that no module of a package is hidden.
    """
    folder = str(file.resolve().parent)
    if folder not in sys.path:
        sys.path.append(folder)
        importlib.invalidate_caches()
