"""Components for tests: a plugin's class, found as the command line finds it, and a budget."""

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
        name: of the class; one in the folder counts before others of that name.
        folder: whose files are plugins, as with ``--plugins``.

    Raises:
        EasyPrunerError: no plugin contributes it, or one cannot be loaded.
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
        raise EasyPrunerError(f'no plugin in {str(folder)!r} has {name!r}; {nearest(name, known)}')
    return (own or found)[0].cls


def example_budget(keep: float = 0.6) -> Budget:
    """Return a budget for a source that needs one: so much of the multiply-adds stays."""
    load_plugins()
    budget: Budget = build(BUDGETS, {'type': 'Macs', 'keep': keep})
    return budget
