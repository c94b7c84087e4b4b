"""Regularizer: a penalty on all norm scales (network slimming; Liu et al., arXiv 1708.06519)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from easypruner import Component, Masks, hookimpl
from easypruner.graph import ChannelGraph
from easypruner.strategies.regularizers.norm_scales import SCALES, scale_names
from easypruner.strategies.regularizers.scale_penalty import ScalePenalty


class GlobalSparsity(ScalePenalty):
    """strength * sum of |gamma| over all batch-norm scales (equation 1 of the paper).

    Scales of channels that cannot be pruned are pushed as well.

    Args:
        strength: lambda; 1e-4 or 5e-4 in practice. ``dict(reach=R)`` picks it from the schedule.
        norm: ``'l1'`` as in the paper, ``'l2'`` (half the square), or ``'smooth_l1'``.
        scales: the kinds of norm whose scales are pushed.
        without_scales: what becomes of groups that have none: ``'skip'`` leaves them alone,
            ``'weights'`` pushes the weights that make their channels, ``'error'``.
        strength_schedule: ``'constant'``, ``'linear'``, ``'cosine'``, ``'warmup'`` or
            ``dict(warmup=share)``.
        group_strengths: path, glob or name of groups -> factor of the strength there.
    """

    def pushed(self, graph: ChannelGraph, masks: Masks | None) -> dict[tuple[str, int], Tensor]:
        nothing_stays = {n: torch.zeros(g.size, dtype=torch.bool) for n, g in graph.groups.items()}
        in_groups = {place: ~keep for place, keep in graph.keep(nothing_stays).items()}
        return in_groups | {
            (name, 0): torch.ones(graph.parameter(name).shape, dtype=torch.bool)
            for name in scale_names(graph, SCALES.values())
        }


@hookimpl
def easypruner_components() -> Iterable[type[Component]]:
    return [GlobalSparsity]
