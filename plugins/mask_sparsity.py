"""Regularizer: L1 on the batch-norm scales a mask will remove (MaskSparsity, arXiv 2201.06776)."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from easypruner import Component, Masks, hookimpl
from easypruner.errors import ConfigError
from easypruner.graph import ChannelGraph
from easypruner.scale_penalty import ScalePenalty, batch_norm_scales


class MaskSparsity(ScalePenalty):
    """strength * sum of |gamma| over the batch-norm scales of the channels that will go.

    The channels that stay train freely: their scales get no penalty at all.

    Args:
        strength: lambda; the released code uses 5e-4. ``dict(reach=R)`` picks it from the schedule.
    """

    def pushed(self, graph: ChannelGraph, masks: Masks | None) -> dict[str, Tensor]:
        if masks is None:
            raise ConfigError(
                'MaskSparsity pushes the channels that masks remove, but there are no masks yet; '
                'put a SelectMask or LoadMask stage before this Train stage'
            )
        keep = graph.keep(masks)
        return {name: ~keep[name, 0] for name in batch_norm_scales(graph) if (name, 0) in keep}


@hookimpl
def easypruner_components() -> Iterable[type[Component]]:
    return [MaskSparsity]
