"""The configs that are shipped with EasyPruner, and the path of a config on the command line."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from easypruner.errors import ConfigError, nearest

PACKAGE = 'easypruner_configs'


def shipped_configs() -> dict[str, Path]:
    """Return name -> path of each shipped config. The configs in ``_base_`` are left out."""
    package = importlib.util.find_spec(PACKAGE)
    folders = package.submodule_search_locations if package is not None else None
    configs: dict[str, Path] = {}
    for folder in folders or ():
        for file in sorted(Path(folder).glob('[!_]*.py')):
            configs.setdefault(file.stem, file)
    return configs


def find_config(name: str) -> Path:
    """Return the path of a config.

    Args:
        name: a path, or the name of a shipped config, such as ``masksparsity_r20_digits``.

    Raises:
        ConfigError: there is no such config.
    """
    path = Path(name)
    if path.is_file():
        return path
    shipped = shipped_configs()
    if name in shipped:
        return shipped[name]
    if path.is_dir():
        raise ConfigError(f'{name!r} is a folder; expected the path of a config')
    raise ConfigError(
        f'there is no config {name!r}; among the shipped configs: {nearest(path.stem, shipped)}'
    )
