"""What is wrong with a plugin: its import, its hooks, the classes that it contributes."""

from __future__ import annotations

import importlib
import inspect
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from easypruner.errors import PluginError
from easypruner.graph.cutting.layer_handler import fault_of_handles
from easypruner.hookspecs import GROUP, HOOKS
from easypruner.plugins import discovery
from easypruner.plugins.completeness import fault_of
from easypruner.plugins.discovery import Candidate
from easypruner.plugins.info import PluginInfo
from easypruner.plugins.registry import REGISTRIES
from easypruner.strategies import LayerHandler


@dataclass(frozen=True)
class Imported:
    """A plugin object, and where it was found."""

    candidate: Candidate
    plugin: object

    @classmethod
    def of(cls, candidate: Candidate) -> Imported:
        """Import a plugin.

        Raises:
            PluginError: it cannot be imported.
        """
        try:
            return cls(candidate, candidate.load())
        except (Exception, SystemExit) as error:
            raise PluginError(
                f'plugin {candidate.name!r}, {candidate.origin}, cannot be imported:\n'
                f'{_traceback(error)}'
            ) from error

    @property
    def file(self) -> str:
        """The file it was imported from; empty where it has none."""
        module = inspect.getmodule(self.plugin) or inspect.getmodule(type(self.plugin))
        return getattr(module, '__file__', None) or ''

    def info(self, hooks: tuple[str, ...]) -> PluginInfo:
        """Return what is known of the plugin."""
        found = self.candidate
        return PluginInfo(found.name, found.address, found.origin, found.version, self.file, hooks)

    def error(self, problem: str) -> PluginError:
        """Return the error that says what is wrong with the plugin."""
        candidate = self.candidate
        where = '' if self.file in candidate.origin else f', file {self.file}'
        return PluginError(f'plugin {candidate.name!r}, {candidate.origin}{where}, {problem}')

    def check_hooks(self, hooks: Sequence[str]) -> None:
        """Raise PluginError unless all that are meant as hooks are among ``hooks``."""
        for name in self._unmarked():
            raise self.error(f'defines {name}() without the decorator @hookimpl')
        if self.candidate.needs_hook and not hooks:
            raise self.error(
                f'implements no hook; expected one of {", ".join(HOOKS)} '
                '(a helper file of a plugin folder has a name that begins with _)'
            )

    def _unmarked(self) -> list[str]:
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
        """Return what the plugin's hook for components returns.

        Raises:
            PluginError: it fails.
        """
        try:
            return list(components())
        except Exception as error:
            raise self.error(f'fails in easypruner_components():\n{_traceback(error)}') from error

    def kind_of(self, cls: Any) -> str:
        """Return the kind of a class that the plugin contributes.

        Raises:
            PluginError: it is no component, or an unfinished one.
        """
        contracts = ', '.join(registry.contract.__name__ for registry in REGISTRIES)
        if not inspect.isclass(cls):
            raise self.error(f'contributes {cls!r}; expected a subclass of one of {contracts}')
        component: type[Any] = cls
        found = [r for r in REGISTRIES if issubclass(cls, r.contract) and cls is not r.contract]
        if len(found) != 1:
            raise self.error(
                f'contributes {cls.__name__}, which must subclass exactly one of {contracts}'
            )
        fault = fault_of(component)
        if fault:
            raise self.error(f'contributes {cls.__name__}, which {fault}')
        return found[0].kind

    def check_handler(self, cls: type[Any]) -> None:
        """Raise PluginError if a layer handler takes arguments, or does not say what it handles."""
        who = f'layer handler {cls.__name__!r} of plugin {self.candidate.name!r}'
        where = self.candidate.origin
        try:
            handler: LayerHandler = cls()
        except Exception as error:
            raise PluginError(
                f'{who}, {where}, cannot be made without arguments: {type(error).__name__}: {error}'
            ) from error
        fault = fault_of_handles(handler)
        if fault:
            raise PluginError(f'{who}, {where}, {fault}')


def _traceback(error: BaseException) -> str:
    """Return the traceback from the plugin's own first frame on."""
    machinery = (__file__, discovery.__file__, str(Path(importlib.__file__).parent), '<frozen')
    frames = traceback.extract_tb(error.__traceback__)
    while frames and frames[0].filename.startswith(machinery):
        del frames[0]
    lines = traceback.format_list(frames) + traceback.format_exception_only(type(error), error)
    return ''.join(lines).rstrip()
