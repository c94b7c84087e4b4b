"""Loading plugins: import them, check their hooks, collect components, fill the registries."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pluggy

from easypruner import hookspecs
from easypruner.errors import PluginError, nearest
from easypruner.hookspecs import GROUP, HOOKS
from easypruner.plugins.checks import Imported
from easypruner.plugins.discovery import CORE_STAGES, Candidate, find_plugins
from easypruner.plugins.info import ComponentInfo, DisabledPlugin, PluginInfo, SkippedPlugin
from easypruner.plugins.registry import (
    LAYER_HANDLERS,
    OPTIMIZER_HANDLERS,
    REGISTRIES,
    STAGES,
    ComponentRegistry,
    note_absent,
)

DISABLE_VARIABLE = 'EASYPRUNER_DISABLE_PLUGINS'


@dataclass(frozen=True)
class Plugins:
    """All loaded plugins.

    Attributes:
        manager: pluggy's manager, which calls the hooks.
        plugins: the loaded plugins, in the order of discovery.
        components: the components of all plugins, sorted by kind and name.
        skipped: the broken plugins that were skipped.
        disabled: the plugins that the user has disabled.
    """

    manager: pluggy.PluginManager = field(repr=False)
    plugins: tuple[PluginInfo, ...]
    components: tuple[ComponentInfo, ...]
    skipped: tuple[SkippedPlugin, ...] = ()
    disabled: tuple[DisabledPlugin, ...] = ()

    def classes_of(self, registry: ComponentRegistry) -> list[type[Any]]:
        """Return the classes for a registry."""
        return [c.cls for c in self.components if c.kind == registry.kind]


def load_plugins(
    folders: Sequence[str | Path] = (),
    custom_imports: Any = (),
    skip_broken: bool = False,
    disable: Sequence[str] = (),
) -> Plugins:
    """Load all plugins and replace the contents of the registries with their components.

    Plugins are found in this order: built-ins, the entry-point group ``easypruner`` of installed
    distributions, ``custom_imports``, ``folders``. A plugin that is found twice is loaded once.
    Loading again gives the same classes, unless a file in a folder was edited.

    Args:
        folders: folders in which each file ``[!_]*.py`` is a plugin.
        custom_imports: names of modules, or MMEngine's ``dict(imports=[...])``.
        skip_broken: whether to skip plugins that cannot be used, and the later of two plugins that
            clash. The result lists them.
        disable: plugins not to load, in addition to those in the environment variable
            EASYPRUNER_DISABLE_PLUGINS (separated by commas). A name disables all plugins of this
            name; ``name@location``, as ``easypruner plugins`` shows it, disables one of them.

    Raises:
        PluginError: a plugin cannot be imported, misspells or misdeclares a hook, contributes
            something that is not a complete component, or contributes a class of the same name as
            another plugin; a handler takes arguments or has a wrong ``handles``; a folder
            does not exist; there is no plugin of a name in ``disable``.
        ConfigError: ``custom_imports`` has something other than names of modules.
    """
    plugins = _load(find_plugins(folders, custom_imports), skip_broken, disable)
    for registry in REGISTRIES:
        registry.fill(plugins.classes_of(registry))
    return plugins


def load_without_stages() -> None:
    """Load all plugins but the built-in stages, which take most of the time: they need MMEngine.

    All stages are loaded when somebody asks for one.

    Raises:
        PluginError: as for :func:`load_plugins`.
    """
    others = [candidate for candidate in find_plugins() if candidate.module != CORE_STAGES]
    plugins = _load(others)
    for registry in REGISTRIES:
        if registry is not STAGES:
            registry.fill(plugins.classes_of(registry))
    STAGES.fill_later(lambda: _load(find_plugins()).classes_of(STAGES))


def _load(
    candidates: Sequence[Candidate], skip_broken: bool = False, disable: Sequence[str] = ()
) -> Plugins:
    disabled = tuple(_disabled(candidates, disable))
    off = {plugin.address for plugin in disabled}
    loader = _Loader(skip_broken)
    for candidate in candidates:
        if candidate.address not in off:
            loader.load(candidate)
    plugins = loader.finish(disabled)
    note_absent([*plugins.disabled, *plugins.skipped])
    return plugins


def _disabled(candidates: Sequence[Candidate], disable: Sequence[str]) -> Iterator[DisabledPlugin]:
    known = {alias for candidate in candidates for alias in candidate.aliases}
    for name in disable:
        if name not in known:
            raise PluginError(f'there is no plugin {name!r} to disable; {nearest(name, known)}')
    # The variable may name plugins that only other Python environments have.
    listed = {name.strip() for name in os.environ.get(DISABLE_VARIABLE, '').split(',')}
    for candidate in candidates:
        for names, by in ((disable, '--disable-plugin or disable='), (listed, DISABLE_VARIABLE)):
            if not candidate.aliases.isdisjoint(names):
                yield DisabledPlugin(**_known_of(candidate), by=by)
                break


def _known_of(candidate: Candidate) -> dict[str, str]:
    """Return the fields that describe a plugin that is not loaded."""
    return {
        'name': candidate.name,
        'address': candidate.address,
        'origin': candidate.origin,
        'file': str(candidate.file or ''),
    }


class _Loader:
    """Loads plugins one after the other."""

    def __init__(self, skip_broken: bool) -> None:
        self._skip_broken = skip_broken
        self._manager = pluggy.PluginManager(GROUP)
        self._manager.add_hookspecs(hookspecs)
        self._files: set[Path] = set()
        self._plugins: list[PluginInfo] = []
        self._components: dict[tuple[str, str], ComponentInfo] = {}
        self._skipped: list[SkippedPlugin] = []

    def load(self, candidate: Candidate) -> None:
        """Load a plugin, unless it is loaded already."""
        if candidate.file in self._files and not candidate.attribute:
            return
        try:
            imported = Imported.of(candidate)
            if self._manager.is_registered(imported.plugin):
                return
            self._register(imported)
        except PluginError as error:
            if not (self._skip_broken or candidate.may_fail):
                raise PluginError(
                    f'{error}\nTo continue without this plugin, set '
                    f'{DISABLE_VARIABLE}={candidate.address} in the environment; or skip all that '
                    'cannot be loaded, by --skip-broken-plugins where a command has it, or by '
                    'easypruner.plugins.load_plugins(skip_broken=True)'
                ) from error
            self._skipped.append(SkippedPlugin(**_known_of(candidate), reason=str(error)))

    def finish(self, disabled: tuple[DisabledPlugin, ...]) -> Plugins:
        """Return all loaded plugins."""
        order = [registry.kind for registry in REGISTRIES]
        components = sorted(
            self._components.values(), key=lambda info: (order.index(info.kind), info.name)
        )
        return Plugins(
            self._manager,
            tuple(self._plugins),
            tuple(components),
            tuple(self._skipped),
            disabled,
        )

    def _register(self, imported: Imported) -> None:
        """Add a plugin with all its components, or nothing of it after an error."""
        candidate, plugin = imported.candidate, imported.plugin
        try:
            self._manager.register(plugin, name=f'{candidate.name}, {candidate.origin}')
        except pluggy.PluginValidationError as error:
            raise imported.error(f'misdeclares a hook: {error}') from error
        try:
            info = imported.info(self._checked_hooks(imported))
            components = self._components_of(imported, info)
            for component in components.values():
                if component.kind in (LAYER_HANDLERS.kind, OPTIMIZER_HANDLERS.kind):
                    imported.check_handler(component.cls)
        except PluginError:
            self._manager.unregister(plugin)
            raise
        self._plugins.append(info)
        if info.file and not candidate.attribute:
            self._files.add(Path(info.file).resolve())
        self._components.update(components)

    def _checked_hooks(self, imported: Imported) -> tuple[str, ...]:
        callers = self._manager.get_hookcallers(imported.plugin) or ()
        hooks = tuple(caller.name for caller in callers)
        try:
            self._manager.check_pending()
        except pluggy.PluginValidationError as error:
            wrong = next(name for name in hooks if name not in HOOKS)
            raise imported.error(
                f'implements {wrong!r}, which is not a hook; {nearest(wrong, HOOKS)}'
            ) from error
        imported.check_hooks(hooks)
        return hooks

    def _components_of(
        self, imported: Imported, info: PluginInfo
    ) -> dict[tuple[str, str], ComponentInfo]:
        """Return the components of a plugin.

        Raises:
            PluginError: another plugin contributes a class of the same kind and name.
        """
        found: dict[tuple[str, str], ComponentInfo] = {}
        for implementation in self._manager.hook.easypruner_components.get_hookimpls():
            if implementation.plugin is not imported.plugin:
                continue
            for cls in imported.call(implementation.function):
                component = ComponentInfo(imported.find_kind(cls), cls.__name__, cls, info)
                key = component.kind, component.name
                other = self._components.get(key) or found.setdefault(key, component)
                if other.cls is not cls:
                    raise _clash(other, component)
        return found


def _clash(one: ComponentInfo, other: ComponentInfo) -> PluginError:
    named = f'a {one.kind} {one.name!r}'
    if one.plugin == other.plugin:
        return PluginError(f'{one.plugin} contributes {named} twice; rename one class')
    return PluginError(
        f'two plugins contribute {named}: {one.plugin} and {other.plugin}; rename one class, or '
        f'disable {one.plugin.address} or {other.plugin.address} with --disable-plugin or '
        f'{DISABLE_VARIABLE}'
    )
