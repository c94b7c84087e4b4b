"""What is known of a plugin: one that is loaded, what it contributes, one that is left out."""

from __future__ import annotations

import contextlib
import inspect
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from easypruner.strategies import Component


@dataclass(frozen=True)
class PluginInfo:
    """A loaded plugin.

    Attributes:
        name: the entry point's, the file's or the module's name.
        address: what it is disabled by: its name, or ``name@place`` where others have that name.
        origin: where it was found.
        version: of its distribution; empty where it has none.
        file: the file it was imported from; empty where it has none.
        hooks: the hooks it implements.
    """

    name: str
    address: str
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
class AbsentPlugin(ABC):
    """A plugin that was found and is not loaded.

    Attributes:
        name: the entry point's, the file's or the module's name.
        address: as of :class:`PluginInfo`.
        origin: where it was found.
        file: its file; empty where that is not known.
    """

    name: str
    address: str
    origin: str
    file: str

    def __str__(self) -> str:
        return f'plugin {self.name!r}, {self.origin}'

    @property
    @abstractmethod
    def absence(self) -> str:
        """Why it is not loaded, in a few words."""

    def has(self, name: str) -> bool:
        """Tell whether its file defines a class of a name. It is read, not imported."""
        text = ''
        if self.file:
            with contextlib.suppress(OSError):
                text = Path(self.file).read_text(encoding='utf-8', errors='replace')
        return re.search(rf'^class {re.escape(name)}\b', text, re.MULTILINE) is not None


@dataclass(frozen=True)
class SkippedPlugin(AbsentPlugin):
    """A plugin that could not be loaded and was passed over.

    Attributes:
        reason: what is wrong with it.
    """

    reason: str

    @property
    def absence(self) -> str:
        return 'was passed over as broken'


@dataclass(frozen=True)
class DisabledPlugin(AbsentPlugin):
    """A plugin that was not loaded because the user wants it so.

    Attributes:
        by: what disabled it.
    """

    by: str

    @property
    def absence(self) -> str:
        return f'is disabled by {self.by}'
