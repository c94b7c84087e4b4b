"""Strategy: what sources, budgets, regularizers and stages have in common."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from easypruner.base.component import Component
from easypruner.graph import ChannelGraph


class Strategy(Component):
    """A component that a config names, with arguments."""

    @classmethod
    def example(cls, graph: ChannelGraph, folder: Path) -> Mapping[str, Any]:
        """Return arguments with which it works on a small network, for tests.

        What has a default may be left out, and the budget of a source always is.

        Args:
            graph: of the network.
            folder: for files that the arguments name.
        """
        return {}
