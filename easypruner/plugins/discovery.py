"""Discovery of plugins: built-ins, entry points, custom imports and folders."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import pkgutil
import sys
import types
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.machinery import PathFinder
from importlib.metadata import entry_points
from operator import attrgetter
from pathlib import Path
from typing import Any

from easypruner.base.versions import __version__
from easypruner.errors import ConfigError, PluginError
from easypruner.hookspecs import GROUP

BUILT_INS = 'easypruner_plugins'
FOLDER_PACKAGE = 'easypruner_folder_'
"""How the names of packages begin that stand for plugin folders."""
CORE_STAGES = 'easypruner.pipeline.stages'


@dataclass(frozen=True)
class Candidate:
    """A plugin that was found but not imported yet.

    Attributes:
        name: the name of the plugin, by which it can be disabled.
        origin: a description of where the plugin was found, for messages.
        location: the distribution, the folder or the kind of origin. It distinguishes plugins of
            the same name.
        module: the name of the module to import.
        attribute: the name of the plugin object in the module; empty if it is the module itself.
        file: the file of the module, found without an import; None if it is not known.
        needs_hook: whether the plugin has to implement a hook.
        may_fail: whether the plugin is skipped if it cannot be loaded.
        address: its name, or ``name@location`` if other plugins have the same name.
        aliases: all names by which it can be disabled.
        version: the version of its distribution; empty if there is none.
    """

    name: str
    origin: str
    location: str
    module: str
    attribute: str = ''
    file: Path | None = None
    needs_hook: bool = True
    may_fail: bool = False
    address: str = ''
    aliases: frozenset[str] = frozenset()
    version: str = ''

    def load(self) -> object:
        """Import the plugin, and return the plugin object, usually a module."""
        module = importlib.import_module(self.module)
        return attrgetter(self.attribute)(module) if self.attribute else module

    @property
    def full_name(self) -> str:
        """Its name and its location."""
        return f'{self.name}@{self.location}'


def find_plugins(
    folders: Sequence[str | Path] = (), custom_imports: Any = ()
) -> tuple[Candidate, ...]:
    """Return all plugins: built-ins, entry points, custom imports, then files in folders.

    A plugin that is found in several ways occurs once, as its first candidate. It has the names of
    all its candidates.

    Args:
        folders: folders in which each file ``[!_]*.py`` is a plugin.
        custom_imports: names of modules, or MMEngine's ``dict(imports=[...])``.

    Raises:
        PluginError: a folder does not exist or has no plugins.
        ConfigError: ``custom_imports`` has something other than names of modules.
    """
    found: dict[tuple[str, str], list[Candidate]] = {}
    for candidate in _candidates(folders, custom_imports):
        same_plugin = str(candidate.file or candidate.module), candidate.attribute
        found.setdefault(same_plugin, []).append(candidate)
    bearers = Counter(n for same in found.values() for n in {each.name for each in same})
    return tuple(
        replace(
            same[0],
            address=same[0].name if bearers[same[0].name] == 1 else same[0].full_name,
            aliases=frozenset(n for each in same for n in (each.name, each.full_name)),
        )
        for same in found.values()
    )


def _candidates(folders: Sequence[str | Path], custom_imports: Any) -> Iterator[Candidate]:
    yield from _built_ins()
    yield from _entry_points()
    yield from _custom_imports(custom_imports)
    for folder in folders:
        yield from _folder(Path(folder))


def _entry_points() -> Iterator[Candidate]:
    for point in entry_points(group=GROUP):
        # Built-in plugins are found in their package, because a file may have been added or deleted
        # since a checkout was installed.
        if point.module.split('.')[0] in (BUILT_INS, 'easypruner'):
            continue
        distribution = point.dist.name if point.dist else ''
        yield Candidate(
            name=point.name,
            origin=f'{distribution} ({point.value})'.lstrip(),
            version=point.dist.version if point.dist else '',
            location=distribution or point.value,
            module=point.module,
            attribute=point.attr or '',
            file=find_file(point.module),
        )


def built_in_modules() -> list[str]:
    """Return the names of the modules of built-in plugins, sorted."""
    package = importlib.util.find_spec(BUILT_INS)
    if package is None:
        return []
    names = sorted(m.name for m in pkgutil.iter_modules(package.submodule_search_locations))
    return [f'{BUILT_INS}.{name}' for name in names if not name.startswith('_')]


def _built_ins() -> Iterator[Candidate]:
    for name in (CORE_STAGES, *built_in_modules()):
        yield Candidate(
            name=name.rpartition('.')[2],
            origin=f'built in ({name})',
            version=__version__,
            location='built-in',
            module=name,
            file=find_file(name),
        )


def _custom_imports(custom_imports: Any) -> Iterator[Candidate]:
    may_fail = False
    if isinstance(custom_imports, Mapping):
        may_fail = bool(custom_imports.get('allow_failed_imports', False))
        custom_imports = custom_imports.get('imports', ())
    names = [custom_imports] if isinstance(custom_imports, str) else custom_imports or ()
    if not isinstance(names, Iterable):
        raise ConfigError(f'custom_imports: expected names of modules, got {names!r}')
    for name in names:
        if not isinstance(name, str):
            raise ConfigError(f'custom_imports: expected names of modules, got {name!r}')
        yield Candidate(
            name=name,
            origin=f'custom_imports ({name})',
            location='custom_imports',
            module=name,
            file=find_file(name),
            # A module may only register something with MMEngine.
            needs_hook=False,
            may_fail=may_fail,
        )


def _folder(folder: Path) -> Iterator[Candidate]:
    if not folder.is_dir():
        raise PluginError(f'there is no plugin folder {str(folder)!r}; check the path')
    files = sorted(folder.resolve().glob('[!_]*.py'))
    if not files:
        raise PluginError(
            f'the plugin folder {str(folder)!r} has no plugins; expected files [!_]*.py'
        )
    package = _package_of(folder.resolve())
    for file in files:
        yield Candidate(
            name=file.stem,
            origin=str(file),
            location=str(folder),
            module=f'{package}.{file.stem}',
            file=file.resolve(),
        )


def find_file(module: str) -> Path | None:
    """Return the file of a module without importing anything; None if it is not found.

    >>> find_file('easypruner.plugins.discovery').name
    'discovery.py'
    """
    top, *parts = module.split('.')
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    for part in parts:
        folders = spec.submodule_search_locations if spec else None
        spec = PathFinder.find_spec(part, folders or [])
    return Path(spec.origin).resolve() if spec and spec.has_location and spec.origin else None


def _package_of(folder: Path) -> str:
    """Make a package with a unique name from a folder, and return the name.

    The files in the folder can import each other relatively. The name depends on their contents,
    so that an edited folder becomes a new package.
    """
    digest = hashlib.sha256(str(folder).encode())
    for file in sorted(folder.glob('*.py')):
        digest.update(file.name.encode() + file.read_bytes())
    name = f'{FOLDER_PACKAGE}{digest.hexdigest()[:16]}'
    if name not in sys.modules:
        package = types.ModuleType(name, f'The plugin folder {folder}.')
        package.__path__ = [str(folder)]
        sys.modules[name] = package
        importlib.invalidate_caches()
    return name
