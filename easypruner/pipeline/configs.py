"""The configs that are shipped with EasyPruner, and the path of a config on the command line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path

from easypruner.engine.foreign_configs import foreign_config, is_foreign, own_folders
from easypruner.errors import ConfigError, nearest


def shipped_configs() -> dict[str, Path]:
    """Return name -> path of each shipped config. The configs in ``_base_`` are left out."""
    configs: dict[str, Path] = {}
    for folder in own_folders():
        for file in sorted(folder.glob('[!_]*.py')):
            configs.setdefault(file.stem, file)
    return configs


def find_config(name: str) -> Path:
    """Return the path of a config.

    Args:
        name: a path; the name of a shipped config, such as ``masksparsity_r20_digits``; or
            ``PACKAGE::PATH`` for a config that another package ships.

    Raises:
        ConfigError: there is no such config.
    """
    path = Path(name)
    if path.is_file():
        return path
    if is_foreign(name):
        return foreign_config(name)
    shipped = shipped_configs()
    if name.removesuffix('.py') in shipped:
        return shipped[name.removesuffix('.py')]
    if path.is_dir():
        raise ConfigError(f'{name!r} is a folder; expected the path of a config')
    raise ConfigError(f'there is no config {name!r}; {_similar(path, shipped)}')


def _similar(path: Path, shipped: Iterable[str]) -> str:
    """Return a hint with the config that a path may have been meant for."""
    if path.suffix or path.parent.name:
        beside = {file.name: file for file in path.parent.glob('*.py')}
        close = difflib.get_close_matches(f'{path.stem}.py', beside, n=1)
        if close:
            return f'did you mean {str(beside[close[0]])!r}?'
    return f'among the shipped configs: {nearest(path.stem, shipped)}'
