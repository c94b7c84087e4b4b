"""Component: what all contracts have in common."""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from easypruner.graph import ChannelGraph


class Component(ABC):
    """Anything a plugin contributes. The contract it subclasses decides where it is registered."""

    def check(self) -> None:  # noqa: B027 - most components need nothing
        """Raise EasyPrunerError if something it needs, such as a file, is not there.

        Called before a run starts.
        """

    @classmethod
    def example(cls, graph: ChannelGraph, folder: Path) -> Mapping[str, Any]:
        """Return arguments with which it works on a small network, for tests.

        What has a default may be left out, and the budget of a source always is.

        Args:
            graph: of the network.
            folder: for files that the arguments name.
        """
        return {}
