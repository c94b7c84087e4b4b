"""Loading plugins: import, check their hooks, collect their components, fill the registries."""

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
from easypruner.plugins.discovery import Candidate, find_plugins
from easypruner.plugins.info import ComponentInfo, DisabledPlugin, PluginInfo, SkippedPlugin
from easypruner.plugins.registry import LAYER_HANDLERS, REGISTRIES, note_absent

DISABLE_VARIABLE = 'EASYPRUNER_DISABLE_PLUGINS'


@dataclass(frozen=True)
class Plugins:
    """All loaded plugins.

    Attributes:
        manager: calls their hooks.
        plugins: in the order of discovery.
        components: what they contribute, by kind and name.
        skipped: the broken ones, where these are passed over.
        disabled: those that the user does without.
    """

    manager: pluggy.PluginManager = field(repr=False)
    plugins: tuple[PluginInfo, ...]
    components: tuple[ComponentInfo, ...]
    skipped: tuple[SkippedPlugin, ...] = ()
    disabled: tuple[DisabledPlugin, ...] = ()


def load_plugins(
    folders: Sequence[str | Path] = (),
    custom_imports: Any = (),
    skip_broken: bool = False,
    disable: Sequence[str] = (),
) -> Plugins:
    """Load all plugins and fill the registries with what they contribute, and nothing else.

    Found in this order: the built-ins, the entry-point group ``easypruner`` of installed
    distributions, ``custom_imports``, ``folders``. A plugin found twice counts once. Loading again
    gives the same classes, unless a file of a folder was edited.

    Args:
        folders: their files ``[!_]*.py`` are plugins.
        custom_imports: module names, or MMEngine's ``dict(imports=[...])``.
        skip_broken: pass over plugins that cannot be used, and over the later of two that clash;
            they are listed in the result.
        disable: plugins not to import, besides those that the environment variable
            EASYPRUNER_DISABLE_PLUGINS lists, separated by commas. A name stands for all plugins of
            that name; ``name@place`` for one of them, as ``easypruner plugins`` shows it.

    Raises:
        PluginError: a plugin cannot be imported, misspells or misdeclares a hook, contributes
            what is no component or an unfinished one, or contributes a class name that another
            has; a layer handler does not say what it handles, or takes arguments; a folder does
            not exist; ``disable`` names a plugin that there is not.
        ConfigError: ``custom_imports`` is not understood.
    """
    candidates = find_plugins(folders, custom_imports)
    disabled = tuple(_disabled(candidates, disable))
    off = {plugin.address for plugin in disabled}
    loader = _Loader(skip_broken)
    for candidate in candidates:
        if candidate.address not in off:
            loader.load(candidate)
    plugins = loader.finish(disabled)
    for registry in REGISTRIES:
        registry.fill(c.cls for c in plugins.components if c.kind == registry.kind)
    note_absent([*plugins.disabled, *plugins.skipped])
    return plugins


def _disabled(candidates: Sequence[Candidate], disable: Sequence[str]) -> Iterator[DisabledPlugin]:
    known = {alias for candidate in candidates for alias in candidate.aliases}
    for name in disable:
        if name not in known:
            raise PluginError(f'plugin {name!r} cannot be disabled: {nearest(name, known)}')
    # A shell may list plugins that not all of its environments have: no error.
    listed = {name.strip() for name in os.environ.get(DISABLE_VARIABLE, '').split(',')}
    for candidate in candidates:
        for names, by in ((disable, '--disable-plugin or disable='), (listed, DISABLE_VARIABLE)):
            if not candidate.aliases.isdisjoint(names):
                yield DisabledPlugin(**_known_of(candidate), by=by)
                break


def _known_of(candidate: Candidate) -> dict[str, str]:
    """Return what is known of a plugin that is not loaded."""
    return {
        'name': candidate.name,
        'address': candidate.address,
        'origin': candidate.origin,
        'file': str(candidate.file or ''),
    }


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
                    f'{error}\nTo go on without it: --skip-broken-plugins, '
                    f'{DISABLE_VARIABLE}={candidate.address} in the environment, or '
                    'easypruner.plugins.load_plugins(skip_broken=True)'
                ) from error
            self._skipped.append(SkippedPlugin(**_known_of(candidate), reason=str(error)))

    def finish(self, disabled: tuple[DisabledPlugin, ...]) -> Plugins:
        """Return what was loaded."""
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
        """Add a plugin with all that it contributes, or nothing of it."""
        candidate, plugin = imported.candidate, imported.plugin
        try:
            self._manager.register(plugin, name=f'{candidate.name}, {candidate.origin}')
        except pluggy.PluginValidationError as error:
            raise imported.error(f'misdeclares a hook: {error}') from error
        try:
            info = imported.info(self._checked_hooks(imported))
            components = self._components_of(imported, info)
            for component in components.values():
                if component.kind == LAYER_HANDLERS.kind:
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
                f'implements {wrong!r}, which is no hook; {nearest(wrong, HOOKS)}'
            ) from error
        imported.check_hooks(hooks)
        return hooks

    def _components_of(
        self, imported: Imported, info: PluginInfo
    ) -> dict[tuple[str, str], ComponentInfo]:
        """Return what a plugin contributes and others do not."""
        found: dict[tuple[str, str], ComponentInfo] = {}
        for implementation in self._manager.hook.easypruner_components.get_hookimpls():
            if implementation.plugin is not imported.plugin:
                continue
            for cls in imported.call(implementation.function):
                component = ComponentInfo(imported.kind_of(cls), cls.__name__, cls, info)
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
        f'disable one plugin: {one.plugin.address} or {other.plugin.address}, by --disable-plugin '
        f'or {DISABLE_VARIABLE}'
    )
