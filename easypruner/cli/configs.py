"""The configs that come with EasyPruner, and where a config named on the command line lies."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from easypruner.errors import ConfigError, nearest

PACKAGE = 'easypruner_configs'


def shipped_configs() -> dict[str, Path]:
    """Return the configs of the installation: name -> path. Their bases are not among them."""
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
        ConfigError: neither is there.
    """
    path = Path(name)
    if path.is_file():
        return path
    shipped = shipped_configs()
    if name in shipped:
        return shipped[name]
    if path.is_dir():
        raise ConfigError(f'{name!r} is a folder; expected a config file in it')
    raise ConfigError(
        f'there is no config {name!r}; among the shipped ones: {nearest(path.stem, shipped)}'
    )
