"""Where plugins are found: entry points, built-ins, custom imports and folders."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import pkgutil
import sys
import types
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from easypruner.base.versions import __version__
from easypruner.errors import ConfigError, PluginError
from easypruner.hookspecs import GROUP

BUILT_INS = 'easypruner_plugins'
CORE_STAGES = 'easypruner.pipeline.stages'


@dataclass(frozen=True)
class Candidate:
    """A plugin that was found but not imported yet.

    Attributes:
        name: what the plugin is called, and disabled by.
        origin: where it comes from, for people.
        version: of its distribution; empty where it has none.
        place: tells it from others of its name: the distribution, the folder, or the kind.
        load: imports it and returns the plugin object, as a rule a module.
        module: the module that is imported.
        attribute: the object in it that is the plugin; empty where that is the module.
        file: the module's file, found without an import; None where it cannot be.
        needs_hook: whether one that implements no hook is a mistake.
        may_fail: whether it is passed over where it cannot be loaded.
        address: what it is disabled by: its name, or ``name@place`` where others have that name.
        aliases: all that it may be disabled by.
    """

    name: str
    origin: str
    version: str
    place: str
    load: Callable[[], object]
    module: str
    attribute: str = ''
    file: Path | None = None
    needs_hook: bool = True
    may_fail: bool = False
    address: str = ''
    aliases: frozenset[str] = frozenset()

    @property
    def identity(self) -> tuple[str, str]:
        """What is the same for a plugin that is found in several ways."""
        return str(self.file or self.module), self.attribute

    @property
    def full_name(self) -> str:
        """Its name and its place."""
        return f'{self.name}@{self.place}'


def find_plugins(
    folders: Sequence[str | Path] = (), custom_imports: Any = ()
) -> tuple[Candidate, ...]:
    """Return what there is: built-ins, entry points, custom imports, then files of folders.

    A plugin found in several ways is the first of these, by all of their names.

    Args:
        folders: each of their files ``[!_]*.py`` is a plugin.
        custom_imports: module names, or MMEngine's ``dict(imports=[...])``.

    Raises:
        PluginError: a folder does not exist.
        ConfigError: custom_imports is not understood.
    """
    found: dict[tuple[str, str], list[Candidate]] = {}
    for candidate in _candidates(folders, custom_imports):
        found.setdefault(candidate.identity, []).append(candidate)
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
        # Our own are read from the package itself: a file that was added or deleted since the
        # installation of a checkout counts.
        if point.module.split('.')[0] not in (BUILT_INS, 'easypruner'):
            yield _entry_point(point)


def _entry_point(point: EntryPoint) -> Candidate:
    distribution, version = '', ''
    if point.dist is not None:
        distribution, version = point.dist.name, point.dist.version
    return Candidate(
        name=point.name,
        origin=f'{distribution} ({point.value})'.lstrip(),
        version=version,
        place=distribution or point.value,
        load=point.load,
        module=point.module,
        attribute=point.attr or '',
        file=file_of(point.module),
    )


def _built_ins() -> Iterator[Candidate]:
    names = [CORE_STAGES]
    package = importlib.util.find_spec(BUILT_INS)
    if package is not None:
        modules = pkgutil.iter_modules(package.submodule_search_locations)
        names += [f'{BUILT_INS}.{m.name}' for m in modules if not m.name.startswith('_')]
    for name in names:
        yield Candidate(
            name=name.rpartition('.')[2],
            origin=f'built in ({name})',
            version=__version__,
            place='built-in',
            load=_importer(name),
            module=name,
            file=file_of(name),
        )


def _custom_imports(custom_imports: Any) -> Iterator[Candidate]:
    may_fail = False
    if isinstance(custom_imports, Mapping):
        may_fail = bool(custom_imports.get('allow_failed_imports', False))
        custom_imports = custom_imports.get('imports', ())
    names = [custom_imports] if isinstance(custom_imports, str) else list(custom_imports or ())
    for name in names:
        if not isinstance(name, str):
            raise ConfigError(f'custom_imports: expected names of modules, got {name!r}')
        yield Candidate(
            name=name,
            origin=f'custom_imports ({name})',
            version='',
            place='custom_imports',
            load=_importer(name),
            module=name,
            file=file_of(name),
            # A module may be imported for what it registers with MMEngine alone.
            needs_hook=False,
            may_fail=may_fail,
        )


def _folder(folder: Path) -> Iterator[Candidate]:
    if not folder.is_dir():
        raise PluginError(f'there is no plugin folder {str(folder)!r}')
    files = sorted(folder.resolve().glob('[!_]*.py'))
    if not files:
        raise PluginError(
            f'the plugin folder {str(folder)!r} holds no plugin; expected files [!_]*.py'
        )
    package = _package_of(folder.resolve())
    for file in files:
        module = f'{package}.{file.stem}'
        yield Candidate(
            name=file.stem,
            origin=str(file),
            version='',
            place=str(folder),
            load=_importer(module),
            module=module,
            file=file.resolve(),
        )


def file_of(module: str) -> Path | None:
    """Return the file of a module without importing anything; None where that cannot be told.

    >>> file_of('easypruner.plugins.discovery').name
    'discovery.py'
    """
    top, *parts = module.split('.')
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if not parts:
        return Path(spec.origin).resolve() if spec.has_location and spec.origin else None
    for location in spec.submodule_search_locations or ():
        stem = Path(location, *parts)
        for file in (stem / '__init__.py', stem.with_name(f'{stem.name}.py')):
            if file.is_file():
                return file.resolve()
    return None


def _importer(module: str) -> Callable[[], object]:
    return lambda: importlib.import_module(module)


def _package_of(folder: Path) -> str:
    """Make ``folder`` a package of a name that is its own, and return the name.

    Its files may import each other relatively, nothing else sees them, and an edited folder is a
    new package.
    """
    digest = hashlib.sha256(str(folder).encode())
    for file in sorted(folder.glob('*.py')):
        digest.update(file.name.encode() + file.read_bytes())
    name = f'easypruner_folder_{digest.hexdigest()[:16]}'
    if name not in sys.modules:
        package = types.ModuleType(name, f'The plugin folder {folder}.')
        package.__path__ = [str(folder)]
        sys.modules[name] = package
        importlib.invalidate_caches()
    return name
