"""Components for tests: the class of a plugin, and an example budget."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from easypruner.errors import EasyPrunerError, nearest
from easypruner.plugins import load_plugins
from easypruner.plugins.registry import BUDGETS, build
from easypruner.strategies import Budget


def component(name: str, folder: str | Path) -> Any:
    """Return the class of a plugin.

    Args:
        name: the name of the class. A class in the folder has priority over others of this name.
        folder: a folder in which each file is a plugin, as for ``--plugins``.

    Raises:
        EasyPrunerError: no plugin contributes such a class, or a plugin cannot be loaded.
    """
    infos = load_plugins([folder]).components
    found = [info for info in infos if info.name == name]
    home = Path(folder).resolve()
    own = [info for info in found if Path(info.plugin.file).parent == home]
    if len(own or found) > 1:
        kinds = ' and '.join(f'a {info.kind}' for info in own or found)
        raise EasyPrunerError(f'{name!r} is {kinds}; give one of them another name')
    if not found:
        known = {info.name for info in infos}
        raise EasyPrunerError(
            f'no plugin in {str(folder)!r} contributes {name!r}; {nearest(name, known)}'
        )
    return (own or found)[0].cls


def example_budget(keep: float = 0.6) -> Budget:
    """Return a budget for a source: a share of the multiply-adds to keep."""
    load_plugins()
    return build(BUDGETS, {'type': 'Macs', 'keep': keep})
