"""Loading plugins: import, check their hooks, collect their components, fill the registries."""

from __future__ import annotations

import importlib
import inspect
import os
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pluggy

from easypruner import discovery, hookspecs
from easypruner.contracts import Component, LayerHandler
from easypruner.discovery import Candidate, find_plugins
from easypruner.errors import PluginError, nearest
from easypruner.graph.handlers import use_handlers
from easypruner.hookspecs import GROUP
from easypruner.registry import LAYER_HANDLERS, REGISTRIES, ComponentRegistry

DISABLE_VARIABLE = 'EASYPRUNER_DISABLE_PLUGINS'

HOOKS = tuple(name for name in vars(hookspecs) if name.startswith(f'{GROUP}_'))
"""The names of all hooks."""


@dataclass(frozen=True)
class PluginInfo:
    """A loaded plugin.

    Attributes:
        name: the entry point's, the file's or the module's name.
        origin: where it was found.
        version: of its distribution; empty where it has none.
        file: the file it was imported from; empty where it has none.
        hooks: the hooks it implements.
    """

    name: str
    origin: str
    version: str
    file: str
    hooks: tuple[str, ...]

    def __str__(self) -> str:
        return f'plugin {self.name!r}, {self.origin}'


@dataclass(frozen=True)
class ComponentInfo:
    """A class that a plugin contributes.

    Attributes:
        kind: of its registry, such as 'mask source'.
        name: what configs call it.
        cls: the class itself.
        plugin: the plugin it comes from.
    """

    kind: str
    name: str
    cls: type[Component]
    plugin: PluginInfo

    @property
    def summary(self) -> str:
        """Return the first line of the class's own docstring; empty where it has none."""
        return (inspect.cleandoc(vars(self.cls)['__doc__'] or '').splitlines() or [''])[0]


@dataclass(frozen=True)
class SkippedPlugin:
    """A plugin that could not be loaded and was passed over."""

    name: str
    origin: str
    reason: str


@dataclass(frozen=True)
class Plugins:
    """All loaded plugins.

    Attributes:
        manager: calls their hooks.
        plugins: in the order of discovery.
        components: what they contribute, by kind and name.
        skipped: the broken ones, where these are passed over.
    """

    manager: pluggy.PluginManager = field(repr=False)
    plugins: tuple[PluginInfo, ...]
    components: tuple[ComponentInfo, ...]
    skipped: tuple[SkippedPlugin, ...] = ()


def load_plugins(
    folders: Sequence[str | Path] = (),
    custom_imports: Any = (),
    skip_broken: bool = False,
    disable: Sequence[str] = (),
) -> Plugins:
    """Load all plugins and fill the registries with what they contribute, and nothing else.

    Found in this order: the entry-point group ``easypruner`` of installed distributions, the
    built-ins, ``custom_imports``, ``folders``. A plugin found twice counts once. Loading again
    gives the same classes, unless a file of a folder was edited.

    Args:
        folders: their files ``[!_]*.py`` are plugins.
        custom_imports: module names, or MMEngine's ``dict(imports=[...])``.
        skip_broken: pass over plugins that cannot be used; they are listed in the result.
        disable: names of plugins not to import, besides those that the environment variable
            EASYPRUNER_DISABLE_PLUGINS lists, separated by commas.

    Raises:
        PluginError: a plugin cannot be imported, misspells or misdeclares a hook, contributes
            what is no component, or contributes a class name that another has; a layer handler
            handles nothing or takes arguments; a folder does not exist; ``disable`` names a plugin
            that there is not.
        ConfigError: ``custom_imports`` is not understood.
    """
    candidates = list(find_plugins(folders, custom_imports))
    loader = _Loader(skip_broken)
    for candidate in _enabled(candidates, disable):
        loader.load(candidate)
    plugins = loader.finish()
    for registry in REGISTRIES:
        registry.fill(c.cls for c in plugins.components if c.kind == registry.kind)
    use_handlers([_handler(c) for c in plugins.components if c.kind == LAYER_HANDLERS.kind])
    return plugins


def _handler(component: ComponentInfo) -> LayerHandler:
    """Make a layer handler: no config does."""
    try:
        handler = component.cls()
    except Exception as error:
        raise PluginError(
            f'layer handler {component.name!r} of {component.plugin} cannot be made without '
            f'arguments: {type(error).__name__}: {error}'
        ) from error
    assert isinstance(handler, LayerHandler)
    if not handler.handles or isinstance(handler.handles, str):
        raise PluginError(
            f'layer handler {component.name!r} of {component.plugin} handles '
            f'{handler.handles!r}; expected a tuple of module types or of their full names'
        )
    return handler


def _enabled(candidates: Sequence[Candidate], disable: Sequence[str]) -> list[Candidate]:
    names = {candidate.name for candidate in candidates}
    for name in disable:
        if name not in names:
            raise PluginError(f'plugin {name!r} cannot be disabled: {nearest(name, names)}')
    # A shell may list plugins that not all of its environments have: no error.
    listed = (name.strip() for name in os.environ.get(DISABLE_VARIABLE, '').split(','))
    off = {*disable, *listed}
    return [candidate for candidate in candidates if candidate.name not in off]


class _Loader:
    """Loads one plugin after the other into one manager."""

    def __init__(self, skip_broken: bool) -> None:
        self._skip_broken = skip_broken
        self._manager = pluggy.PluginManager(GROUP)
        self._manager.add_hookspecs(hookspecs)
        self._files: set[Path] = set()
        self._plugins: list[PluginInfo] = []
        self._components: dict[tuple[str, str], ComponentInfo] = {}
        self._skipped: list[SkippedPlugin] = []

    def load(self, candidate: Candidate) -> None:
        """Load a plugin, unless it was found and loaded before."""
        if candidate.file in self._files:
            return
        try:
            imported = _Imported.of(candidate)
            if self._manager.is_registered(imported.plugin):
                return
            info, components = self._register(imported)
        except PluginError as error:
            if not (self._skip_broken or candidate.may_fail):
                raise
            self._skipped.append(SkippedPlugin(candidate.name, candidate.origin, str(error)))
            return
        self._plugins.append(info)
        if info.file:
            self._files.add(Path(info.file).resolve())
        for component in components:
            self._add(component)

    def finish(self) -> Plugins:
        """Return what was loaded."""
        order = [registry.kind for registry in REGISTRIES]
        components = sorted(
            self._components.values(), key=lambda info: (order.index(info.kind), info.name)
        )
        return Plugins(self._manager, tuple(self._plugins), tuple(components), tuple(self._skipped))

    def _register(self, imported: _Imported) -> tuple[PluginInfo, list[ComponentInfo]]:
        candidate, plugin = imported.candidate, imported.plugin
        try:
            self._manager.register(plugin, name=f'{candidate.name}, {candidate.origin}')
        except pluggy.PluginValidationError as error:
            raise imported.error(f'misdeclares a hook: {error}') from error
        try:
            hooks = self._checked_hooks(imported)
            info = PluginInfo(
                candidate.name, candidate.origin, candidate.version, imported.file, hooks
            )
            return info, self._components_of(imported, info)
        except PluginError:
            self._manager.unregister(plugin)
            raise

    def _checked_hooks(self, imported: _Imported) -> tuple[str, ...]:
        callers = self._manager.get_hookcallers(imported.plugin) or ()
        hooks = tuple(caller.name for caller in callers)
        try:
            self._manager.check_pending()
        except pluggy.PluginValidationError as error:
            wrong = next(name for name in hooks if name not in HOOKS)
            raise imported.error(
                f'implements {wrong!r}, which is no hook; {nearest(wrong, HOOKS)}'
            ) from error
        for name in imported.unmarked():
            raise imported.error(f'defines {name}() without the decorator @hookimpl')
        if imported.candidate.needs_hook and not hooks:
            raise imported.error(
                f'implements no hook; expected one of {", ".join(HOOKS)} '
                '(a helper file of a plugin folder has a name that begins with _)'
            )
        return hooks

    def _components_of(self, imported: _Imported, info: PluginInfo) -> list[ComponentInfo]:
        components = []
        for implementation in self._manager.hook.easypruner_components.get_hookimpls():
            if implementation.plugin is imported.plugin:
                for cls in imported.call(implementation.function):
                    kind = imported.registry_of(cls).kind
                    components.append(ComponentInfo(kind, cls.__name__, cls, info))
        return components

    def _add(self, component: ComponentInfo) -> None:
        key = component.kind, component.name
        other = self._components.setdefault(key, component)
        if other.cls is not component.cls:
            raise PluginError(
                f'two plugins contribute a {component.kind} {component.name!r}: '
                f'{other.plugin} and {component.plugin}; rename one class or disable one plugin'
            )


@dataclass(frozen=True)
class _Imported:
    """A plugin object, and where it was found."""

    candidate: Candidate
    plugin: object

    @classmethod
    def of(cls, candidate: Candidate) -> _Imported:
        try:
            return cls(candidate, candidate.load())
        except (Exception, SystemExit) as error:
            raise PluginError(
                f'plugin {candidate.name!r}, {candidate.origin}, cannot be imported '
                f'(--skip-broken-plugins passes over it):\n{_traceback(error)}'
            ) from error

    @property
    def file(self) -> str:
        module = inspect.getmodule(self.plugin) or inspect.getmodule(type(self.plugin))
        return getattr(module, '__file__', None) or ''

    def error(self, problem: str) -> PluginError:
        candidate = self.candidate
        where = '' if self.file in candidate.origin else f', file {self.file}'
        return PluginError(f'plugin {candidate.name!r}, {candidate.origin}{where}, {problem}')

    def unmarked(self) -> list[str]:
        """Return the plugin's own functions that are named like hooks but are not marked so."""
        if not isinstance(self.plugin, ModuleType):
            return []
        module = self.plugin.__name__
        return [
            name
            for name, value in vars(self.plugin).items()
            if name.startswith(f'{GROUP}_')
            and inspect.isfunction(value)
            and value.__module__ == module
            and not hasattr(value, f'{GROUP}_impl')
        ]

    def call(self, components: Callable[[], Any]) -> list[Any]:
        try:
            return list(components())
        except Exception as error:
            raise self.error(f'fails in easypruner_components():\n{_traceback(error)}') from error

    def registry_of(self, cls: Any) -> ComponentRegistry:
        contracts = ', '.join(registry.contract.__name__ for registry in REGISTRIES)
        if not inspect.isclass(cls):
            raise self.error(f'contributes {cls!r}; expected a subclass of one of {contracts}')
        found = [r for r in REGISTRIES if issubclass(cls, r.contract) and cls is not r.contract]
        if len(found) != 1:
            raise self.error(
                f'contributes {cls.__name__}, which must subclass exactly one of {contracts}'
            )
        if inspect.isabstract(cls):
            missing = ', '.join(sorted(getattr(cls, '__abstractmethods__', ())))
            raise self.error(f'contributes {cls.__name__}, which does not define {missing}')
        return found[0]


def _traceback(error: BaseException) -> str:
    """Return the traceback from the plugin's own first frame on."""
    machinery = (__file__, discovery.__file__, str(Path(importlib.__file__).parent), '<frozen')
    frames = traceback.extract_tb(error.__traceback__)
    while frames and frames[0].filename.startswith(machinery):
        del frames[0]
    lines = traceback.format_list(frames) + traceback.format_exception_only(type(error), error)
    return ''.join(lines).rstrip()
