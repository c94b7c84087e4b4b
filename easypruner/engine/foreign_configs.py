"""Configs that other packages ship, by name: ``mmpretrain::resnet/resnet50_8xb32_in1k.py``."""

from __future__ import annotations

import difflib
import functools
import importlib.util
from importlib import metadata
from pathlib import Path
from typing import Any

from easypruner.errors import ConfigError

SEPARATOR = '::'
_OWN = 'easypruner', 'easypruner_configs'
"""This package, and the package of its configs."""
_FOLDERS = ('.mim/configs', '../configs', 'configs')
"""Where a package has its configs, relative to its module: in a wheel, and in a checkout."""


def own_folders() -> list[Path]:
    """Return the folders of the configs that are shipped with EasyPruner."""
    package = importlib.util.find_spec(_OWN[1])
    locations = package.submodule_search_locations if package is not None else None
    return [Path(location) for location in locations or ()]


def is_foreign(name: str) -> bool:
    """Return whether the name of a config is ``PACKAGE::PATH``."""
    return SEPARATOR in name


def foreign_config(name: str) -> Path:
    """Return the path of a config that an installed package ships.

    Args:
        name: ``PACKAGE::FOLDER/FILE.py``; a file name without its folder is enough if it is unique.

    Raises:
        ConfigError: there is no such package or config.
    """
    package, _, inside = name.partition(SEPARATOR)
    folder = _config_folder(package, name)
    file = folder / (inside if inside.endswith('.py') else f'{inside}.py')
    if file.is_file():
        return file
    known = sorted(str(path.relative_to(folder)) for path in folder.glob('**/*.py'))
    named = [path for path in known if Path(path).name == file.name]
    if len(named) == 1 and '/' not in inside:
        return folder / named[0]
    close = named or difflib.get_close_matches(inside, known, n=3)
    hint = f'did you mean {" or ".join(map(repr, close))}?' if close else f'they are in {folder}'
    raise ConfigError(f'{package} has no config {inside!r}; {hint}')


def _config_folder(package: str, name: str) -> Path:
    own = own_folders()
    if package == _OWN[0] and own:
        return own[0]
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None or spec.origin is None:
        raise ConfigError(
            f'config {name!r}: the package {package!r} is not installed; install it, or give the '
            'path of the config'
        )
    home = Path(spec.origin).parent
    for folder in _FOLDERS:
        if (home / folder / '_base_').is_dir():
            return (home / folder).resolve()
    raise ConfigError(
        f'config {name!r}: the package {package!r} has no configs; expected the folder '
        f'{_FOLDERS[0]} in {str(home)!r}'
    )


def is_installed(package: str) -> bool:
    """Return whether a distribution or module of this name is installed."""
    try:
        metadata.distribution(package)
    except metadata.PackageNotFoundError:
        return package.isidentifier() and importlib.util.find_spec(package) is not None
    return True


def get_installed_path(package: str) -> str:
    """Return the folder of a module, given its name or that of its distribution.

    Raises:
        PackageNotFoundError: there is no such module.
    """
    modules = [m for m, owners in metadata.packages_distributions().items() if package in owners]
    for module in (package, *sorted(modules)):
        spec = importlib.util.find_spec(module) if module.isidentifier() else None
        if spec is not None and spec.origin is not None:
            return str(Path(spec.origin).parent)
    raise metadata.PackageNotFoundError(package)


@functools.cache
def enable_foreign_configs() -> None:
    """Let MMEngine read configs of other packages, and ``_base_ = 'PACKAGE::PATH'``.

    MMEngine 0.10 looks for packages with pkg_resources, which setuptools does not have any more.
    """
    import mmengine.config.config as reader
    import mmengine.utils as utils
    from mmengine.utils import package_utils

    for module in (reader, utils, package_utils):
        module.is_installed = is_installed
        module.get_installed_path = get_installed_path
    own: Any = reader.Config._get_cfg_path

    def _get_cfg_path(cfg_path: str, filename: str) -> tuple[str, str | None]:
        if not is_foreign(cfg_path):
            found: tuple[str, str | None] = own(cfg_path, filename)
            return found
        scope = cfg_path.partition(SEPARATOR)[0]
        # The scope makes registries look up names there first. Stages are in no such registry.
        return str(foreign_config(cfg_path)), None if scope == _OWN[0] else scope

    reader.Config._get_cfg_path = staticmethod(_get_cfg_path)


def base_files(path: str | Path) -> list[str]:
    """Return the paths of the bases that a config names in ``_base_``."""
    from mmengine.config import Config

    enable_foreign_configs()
    try:
        names = Config._get_base_files(str(path))
    except SyntaxError:
        # MMEngine inserts variables of the environment first, which may not be Python.
        return []
    return [Config._get_cfg_path(name, str(path))[0] for name in names]
