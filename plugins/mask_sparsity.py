"""Regularizer: a penalty on the norm scales a mask will remove (MaskSparsity, arXiv 2201.06776)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor

from easypruner import Component, Masks, hookimpl
from easypruner.graph import ChannelGraph
from easypruner.strategies.regularizers.scale_penalty import ScalePenalty


class MaskSparsity(ScalePenalty):
    """strength * sum of |gamma| over the batch-norm scales of the channels that will go.

    The channels that stay train freely: their scales get no penalty at all.

    Args:
        strength: lambda; the released code uses 5e-4. ``dict(reach=R)`` picks it from the schedule.
        norm: ``'l1'`` as in the paper, ``'l2'`` (half the square), or ``'smooth_l1'``.
        scales: the kinds of norm whose scales are pushed.
        without_scales: what becomes of groups that lose units and have none: ``'error'``,
            ``'weights'`` pushes the weights that make these units, ``'skip'`` leaves them alone.
        strength_schedule: ``'constant'``, ``'linear'``, ``'cosine'``, ``'warmup'`` or
            ``dict(warmup=share)``.
        group_strengths: path, glob or name of groups -> factor of the strength there.
    """

    def __init__(
        self,
        strength: float | Mapping[str, float],
        norm: str = 'l1',
        scales: str | Sequence[str] = ('batch_norm',),
        without_scales: str = 'error',
        strength_schedule: str | Mapping[str, float] = 'constant',
        group_strengths: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(strength, norm, scales, without_scales, strength_schedule, group_strengths)

    def pushed(self, graph: ChannelGraph, masks: Masks | None) -> dict[tuple[str, int], Tensor]:
        keep = graph.keep(self.needed_masks(graph, masks))
        return {place: ~kept for place, kept in keep.items()}


@hookimpl
def easypruner_components() -> Iterable[type[Component]]:
    return [MaskSparsity]
