"""Files of users that are run as Python runs a script: they import modules that are beside them."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType


def import_beside(file: Path) -> None:
    """Let a file import the modules that are in its folder.

    The folder stays on the path of Python, because functions of the file may import later. It is
    the last one, so that no module of a package is hidden.
    """
    folder = str(file.resolve().parent)
    if folder not in sys.path:
        sys.path.append(folder)
        importlib.invalidate_caches()


def import_of_package(file: Path) -> ModuleType:
    """Import a file as a module of the package in whose folder it is.

    The folders with an ``__init__.py`` above it are the packages around it.

    Raises:
        ImportError: another module has its name, or the import fails.
    """
    path = file.resolve()
    names, folder = [path.stem, path.parent.name], path.parent.parent
    while (folder / '__init__.py').is_file():
        names.append(folder.name)
        folder = folder.parent
    import_beside(folder / path.name)
    name = '.'.join(reversed(names))
    module = importlib.import_module(name)
    found = getattr(module, '__file__', None)
    if found is None or Path(found).resolve() != path:
        raise ImportError(f'{name} is another module, {found}')
    return module
