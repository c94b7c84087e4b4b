"""Descriptions of plugins that are loaded, of their components, and of plugins that are not."""

from __future__ import annotations

import contextlib
import inspect
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from easypruner.strategies import Component


@dataclass(frozen=True)
class FoundPlugin:
    """A plugin that was found.

    Attributes:
        name: the name of the entry point, file or module.
        address: its name, or ``name@location`` if other plugins have the same name.
        origin: a description of where the plugin was found.
        file: its file; empty if there is none, or if it is not known.
    """

    name: str
    address: str
    origin: str
    file: str

    def __str__(self) -> str:
        return f'plugin {self.name!r}, {self.origin}'


@dataclass(frozen=True)
class PluginInfo(FoundPlugin):
    """A loaded plugin.

    Attributes:
        version: the version of its distribution; empty if there is none.
        hooks: the names of the hooks that it implements.
        rules: the operations for which it has rules.
    """

    version: str
    hooks: tuple[str, ...]
    rules: tuple[str, ...] = ()


@dataclass(frozen=True)
class ComponentInfo:
    """A class that a plugin contributes.

    Attributes:
        kind: the kind of its registry, such as 'mask source'.
        name: the name of the class, by which configs use it.
        cls: the class.
        plugin: the plugin that contributes it.
    """

    kind: str
    name: str
    cls: type[Component]
    plugin: PluginInfo

    @property
    def summary(self) -> str:
        """The first line of the class's own docstring; empty if there is none."""
        return (inspect.cleandoc(vars(self.cls)['__doc__'] or '').splitlines() or [''])[0]


@dataclass(frozen=True)
class AbsentPlugin(FoundPlugin, ABC):
    """A plugin that was found but not loaded."""

    @property
    @abstractmethod
    def absence(self) -> str:
        """The reason why the plugin is not loaded, as a verb phrase."""

    def has(self, name: str) -> bool:
        """Return whether the plugin's file defines a class. The file is read, not imported."""
        text = ''
        if self.file:
            with contextlib.suppress(OSError):
                text = Path(self.file).read_text(encoding='utf-8', errors='replace')
        return re.search(rf'^class {re.escape(name)}\b', text, re.MULTILINE) is not None


@dataclass(frozen=True)
class SkippedPlugin(AbsentPlugin):
    """A plugin that was skipped because it cannot be loaded.

    Attributes:
        reason: the message of the error.
    """

    reason: str

    @property
    def absence(self) -> str:
        return 'was skipped as broken'


@dataclass(frozen=True)
class DisabledPlugin(AbsentPlugin):
    """A plugin that the user has disabled.

    Attributes:
        by: the option or variable that disables it.
    """

    by: str

    @property
    def absence(self) -> str:
        return f'is disabled by {self.by}'
