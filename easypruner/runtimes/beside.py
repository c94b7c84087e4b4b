"""Beside: many small networks in one, so that one export is enough for all of them."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


class Beside(nn.Module):
    """Several networks in one.

    Args:
        networks: the networks; each takes one tensor and returns one.
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, *inputs: Tensor) -> list[Tensor]:
        """Run each network on its own input."""
        return [network(x) for network, x in zip(self.networks, inputs, strict=True)]
