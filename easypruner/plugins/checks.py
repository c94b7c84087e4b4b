"""Checks of a plugin: its import, its hooks, and the classes that it contributes."""

from __future__ import annotations

import importlib
import inspect
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from easypruner.base.describe import shown
from easypruner.errors import PluginError
from easypruner.graph.coupling.rules.registration import operations_of
from easypruner.graph.cutting.handles import fault_of_handles
from easypruner.hookspecs import GROUP, HOOKS
from easypruner.plugins import discovery
from easypruner.plugins.completeness import find_fault
from easypruner.plugins.discovery import Candidate
from easypruner.plugins.info import PluginInfo
from easypruner.plugins.registry import REGISTRIES
from easypruner.strategies import LayerHandler, OptimizerHandler


@dataclass(frozen=True)
class Imported:
    """An imported plugin, and the candidate from which it was imported."""

    candidate: Candidate
    plugin: object

    @classmethod
    def of(cls, candidate: Candidate) -> Imported:
        """Import a plugin.

        Raises:
            PluginError: the plugin cannot be imported.
        """
        try:
            return cls(candidate, candidate.load())
        except (Exception, SystemExit) as error:
            raise PluginError(
                f'plugin {candidate.name!r}, {candidate.origin}, cannot be imported:\n'
                f'{_traceback(error)}{_hint(candidate, error)}'
            ) from error

    @property
    def file(self) -> str:
        """The file that the plugin was imported from; empty if there is none."""
        module = inspect.getmodule(self.plugin) or inspect.getmodule(type(self.plugin))
        return getattr(module, '__file__', None) or ''

    def info(self, hooks: tuple[str, ...]) -> PluginInfo:
        """Return a description of the plugin."""
        found = self.candidate
        return PluginInfo(
            found.name, found.address, found.origin, self.file, found.version, hooks, self._rules
        )

    def error(self, problem: str) -> PluginError:
        """Return an error that names the plugin, its file and a problem."""
        candidate = self.candidate
        file = '' if self.file in candidate.origin else f', file {self.file}'
        return PluginError(f'plugin {candidate.name!r}, {candidate.origin}{file}, {problem}')

    def check_hooks(self, hooks: Sequence[str]) -> None:
        """Raise PluginError if a hook lacks its decorator, or if a required hook is missing.

        Args:
            hooks: the names of the hooks that the plugin implements.
        """
        for name in self._undecorated():
            raise self.error(f'defines {name}() without the decorator @hookimpl')
        if self.candidate.needs_hook and not hooks and not self._rules:
            raise self.error(
                f'implements no hook; expected one of {", ".join(HOOKS)} '
                '(the name of a helper file in a plugin folder has to begin with _; a module of '
                'models or data sets is named in custom_imports of the config)'
            )

    @property
    def _rules(self) -> tuple[str, ...]:
        """The operations for which the plugin has registered rules at its import."""
        return operations_of(getattr(self.plugin, '__name__', ''))

    def _undecorated(self) -> list[str]:
        """Return the plugin's functions that have the name of a hook but lack the decorator."""
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
        """Call the plugin's hook for components.

        Raises:
            PluginError: the hook fails, or returns something else than classes.
        """
        try:
            found = components()
            # A generator runs the code of the plugin now.
            classes = list(found) if isinstance(found, Iterable) else None
        except Exception as error:
            raise self.error(f'fails in easypruner_components():\n{_traceback(error)}') from error
        if classes is None:
            got = f'the class {found.__name__}' if isinstance(found, type) else shown(found)
            raise self.error(
                f'returns {got} from easypruner_components(); expected a list of classes, as in '
                'return [MySource]'
            )
        return classes

    def find_kind(self, cls: Any) -> str:
        """Return the kind of a class that the plugin contributes.

        Raises:
            PluginError: the class is not a component, or does not implement its contract.
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
        fault = find_fault(component)
        if fault:
            raise self.error(f'contributes {cls.__name__}, which {fault}')
        return found[0].kind

    def check_handler(self, cls: type[Any]) -> None:
        """Raise PluginError if a handler takes arguments or has a wrong ``handles``."""
        kind = 'optimizer' if issubclass(cls, OptimizerHandler) else 'layer'
        subject = f'{kind} handler {cls.__name__!r} of plugin {self.candidate.name!r}'
        subject = f'{subject}, {self.candidate.origin},'
        try:
            handler: LayerHandler | OptimizerHandler = cls()
        except Exception as error:
            raise PluginError(
                f'{subject} cannot be made without arguments: {type(error).__name__}: {error}'
            ) from error
        fault = fault_of_handles(handler, 'optimizer' if kind == 'optimizer' else 'module')
        if fault:
            raise PluginError(f'{subject} {fault}')


def _hint(candidate: Candidate, error: BaseException) -> str:
    """Return how a module of a config can be found; '' if it was found."""
    missing = (isinstance(error, ModuleNotFoundError) and error.name) or ''
    is_own = missing.split('.')[0] == candidate.module.split('.')[0]
    if not is_own or candidate.location != 'custom_imports':
        return ''
    return (
        '\nThe folder of the module has to be on the path of Python: install it, or set '
        'PYTHONPATH=FOLDER in the environment'
    )


def _traceback(error: BaseException) -> str:
    """Return a traceback without the frames of the loader and of Python's import system."""
    loader = (__file__, discovery.__file__, str(Path(importlib.__file__).parent), '<frozen')
    frames = traceback.extract_tb(error.__traceback__)
    while frames and frames[0].filename.startswith(loader):
        del frames[0]
    lines = traceback.format_list(frames) + traceback.format_exception_only(type(error), error)
    return ''.join(lines).rstrip()
