"""Component: what everything that a plugin contributes has in common."""

from __future__ import annotations

from abc import ABC


class Component(ABC):
    """Anything a plugin contributes. The contract it subclasses decides where it is registered."""

    def check(self) -> None:  # noqa: B027 - most components need nothing
        """Raise EasyPrunerError if something it needs, such as a file, is not there.

        Called before a run starts.
        """
