"""The outlook: what a stage can count on, as far as that is known before a run starts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from mmengine.config import Config

from easypruner.graph import ChannelGraph
from easypruner.graph.masks import Masks


@dataclass(frozen=True)
class Outlook:
    """What is known beforehand of a run at one of its stages.

    Attributes:
        config: of the run.
        seed: of the run.
        graph: of the network as the run starts with it.
        epoch_length: iterations of a training epoch.
        masks: whether masks are selected by then, and not cut yet.
        cut: whether the network has been cut by then, so that ``graph`` is not its graph.
    """

    config: Config
    seed: int
    graph: ChannelGraph
    epoch_length: int
    masks: bool = False
    cut: bool = False

    @property
    def worst_masks(self) -> Masks | None:
        """Masks that remove everything, where masks will be selected; what they keep is unknown."""
        return removing_everything(self.graph) if self.masks else None


def removing_everything(graph: ChannelGraph) -> Masks:
    """Return masks that keep no unit: the worst that a regularizer may have to push."""
    groups = graph.groups.items()
    return Masks({name: torch.zeros(g.size, dtype=torch.bool) for name, g in groups})
