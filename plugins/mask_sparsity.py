"""Regularizer: a penalty on the norm scales that masks remove (MaskSparsity, arXiv 2201.06776)."""

from __future__ import annotations

from torch import Tensor

from easypruner import Masks, hookimpl
from easypruner.graph import ChannelGraph
from easypruner.strategies.regularizers.scale_penalty import ScalePenalty
from easypruner.strategies.regularizers.selected import SelectedScales


class MaskSparsity(ScalePenalty, without_scales='error', biases=None):
    """strength * sum of |gamma| over the batch norm scales of the channels that masks remove.

    The scales of all other channels get no penalty, so these channels train freely. In the proximal
    form, the biases of the removed channels are pushed as well.

    Use when:
        Accuracy right after the cut matters: the channels to remove, and only these, are brought to
        zero before the cut. It needs masks, so put ``SelectMask`` or ``LoadMask`` before.

    Fails when:
        The reach is below twice the largest scale to remove: then scales are not at zero when they
        are cut, and the plan warns. As a gradient, it leaves the biases, which a removed channel
        still contributes; ``Prune`` moves them to the following layer.

    Values:
        ``dict(until=1e-3)`` raises the strength until the removed channels are silent. The released
        code uses a ``strength`` of 5e-4; ``dict(reach=20)`` chooses the strength from the schedule.
    """

    def pushed(self, graph: ChannelGraph, masks: Masks | None) -> dict[tuple[str, int], Tensor]:
        keep = graph.keep(self.needed_masks(graph, masks))
        return {key: ~kept for key, kept in keep.items()}

    def to_zero(self, graph: ChannelGraph, masks: Masks | None) -> SelectedScales:
        return self.selected(graph, masks)


easypruner_components = hookimpl(lambda: [MaskSparsity])
