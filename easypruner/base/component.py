"""Component: the base class of everything that a plugin contributes."""

from __future__ import annotations

from abc import ABC


class Component(ABC):
    """Base class of everything that a plugin contributes.

    A component subclasses one of the contracts. The contract decides in which registry it is.
    """

    def check(self) -> None:  # noqa: B027 - most components need nothing
        """Check that what the component needs, such as a file, exists.

        A run calls this before it starts.

        Raises:
            EasyPrunerError: something is missing.
        """
