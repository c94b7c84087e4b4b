"""Components for tests: a plugin's class, found as the command line finds it, and a budget."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from easypruner.contracts import Budget
from easypruner.errors import EasyPrunerError, nearest
from easypruner.plugins import load_plugins
from easypruner.registry import BUDGETS, REGISTRIES, build


def component(name: str, folder: Path) -> Any:
    """Return the class of a plugin.

    Args:
        name: of the class.
        folder: whose files are plugins, as with ``--plugins``.

    Raises:
        EasyPrunerError: no plugin contributes it, or one cannot be loaded.
    """
    load_plugins([folder])
    found = {n: cls for registry in REGISTRIES for n, cls in registry.module_dict.items()}
    if name not in found:
        raise EasyPrunerError(f'no plugin in {str(folder)!r} has {name!r}; {nearest(name, found)}')
    return found[name]


def example_budget(keep: float = 0.6) -> Budget:
    """Return a budget for a source that needs one: so much of the multiply-adds stays."""
    load_plugins()
    budget: Budget = build(BUDGETS, {'type': 'Macs', 'keep': keep})
    return budget
