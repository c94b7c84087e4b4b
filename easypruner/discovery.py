"""Where plugins are found: entry points, built-ins, custom imports and folders."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import pkgutil
import sys
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import easypruner
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
        load: imports it and returns the plugin object, as a rule a module.
        file: its file, known beforehand only for plugins of a folder.
        needs_hook: whether one that implements no hook is a mistake.
        may_fail: whether it is passed over where it cannot be loaded.
    """

    name: str
    origin: str
    version: str
    load: Callable[[], object]
    file: Path | None = None
    needs_hook: bool = True
    may_fail: bool = False


def find_plugins(
    folders: Sequence[str | Path] = (), custom_imports: Any = ()
) -> Iterator[Candidate]:
    """Yield what there is: entry points, built-ins, custom imports, then files of folders.

    Args:
        folders: each of their files ``[!_]*.py`` is a plugin.
        custom_imports: module names, or MMEngine's ``dict(imports=[...])``.

    Raises:
        PluginError: a folder does not exist.
        ConfigError: custom_imports is not understood.
    """
    yield from _entry_points()
    yield from _built_ins()
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
        distribution, version = f'{point.dist.name} ', point.dist.version
    return Candidate(point.name, f'{distribution}({point.value})', version, point.load)


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
            version=easypruner.__version__,
            load=_importer(name),
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
            load=_importer(name),
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
        yield Candidate(file.stem, str(file), '', _importer(f'{package}.{file.stem}'), file=file)


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
