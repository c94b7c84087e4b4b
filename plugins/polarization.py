"""Regularizer: separates norm scales (Polarization; Zhuang et al., NeurIPS 2020)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from easypruner import Masks, Progress, Regularizer, hookimpl
from easypruner.base.checks import check_number
from easypruner.graph import ChannelGraph
from easypruner.strategies.regularizers.norm_scales import FlatScales, ScaleKinds
from easypruner.strategies.regularizers.pushing import (
    PreparedOnce,
    check_not_nan,
    in_gradient_scale,
)


class Polarization(Regularizer):
    """strength * sum of (t * |gamma| - |gamma - mean of all gamma|) over all norm scales.

    This is equation 2 of the paper. An L1 penalty pushes every scale to zero. This penalty pushes
    scales well below the mean to zero, and the others away from the mean, so that the scales form
    two clusters. The mean is taken over the whole network, and has a gradient.

    In the paper, scales are in 0..a with a = 1, to which its code clips them. Without a bound, the
    scales above the mean grow as long as most are below it. With ``bound``, a magnitude above it
    counts as the bound in the second term. Only the L1 term remains there, which brings the scale
    back.

    Use when:
        Channels are ranked by ``BNScale`` afterwards, and the threshold should fall into a gap
        between the scales that go and those that stay.

    Fails when:
        Scales have very different means in different layers: with a single mean, whole layers may
        be pushed to zero; set ``limits`` or ``group_strengths``. The size of the two clusters
        follows from ``t`` and ``strength``, which both have to be tuned for a target size.

    Values:
        The paper uses a ``strength`` of about 1e-4, and a ``t`` of 1.2 in most experiments. A
        larger ``t`` removes more channels.

    Args:
        t: the weight of the L1 term.
        bound: the bound a, above the mean of the scales; None for no bound.
        scales: the kinds of norm whose scales are pushed: ``'batch_norm'``, ``'instance_norm'``,
            ``'group_norm'`` or ``'layer_norm'``, or several.
        group_strengths: path, glob or name of groups -> factor of their scales' terms. Scales with
            the factor 0 do not count in the mean.
    """

    def __init__(
        self,
        strength: float | Mapping[str, float],
        t: float = 1.2,
        scales: str | Sequence[str] = ('batch_norm',),
        strength_schedule: str | Mapping[str, float] = 'constant',
        group_strengths: Mapping[str, float] | None = None,
        bound: float | None = None,
    ) -> None:
        super().__init__(strength, strength_schedule, group_strengths)
        self.t = check_number(t, 't', 'Polarization', least=0)
        self.bound = bound
        if bound is not None:
            check_number(bound, 'bound', 'Polarization', least=0)
        self._kinds = ScaleKinds.of(scales, 'Polarization')
        self._prepared = PreparedOnce(self._prepare)

    def penalty(self, graph: ChannelGraph, masks: Masks | None) -> Tensor:
        scales = self._prepared(graph, masks)
        row = scales.row()
        mean = row[scales.factors > 0].mean()
        terms = self.t * row.abs() - (self._bounded(row) - mean).abs()
        return self.strength * (scales.factors * terms).sum()

    @torch.no_grad()
    def add_gradient(self, graph: ChannelGraph, masks: Masks | None, progress: Progress) -> None:
        scales = self._prepared(graph, masks)
        row = scales.row()
        counts = (scales.factors > 0).to(row)
        mean = (row * counts).sum() / counts.sum()
        sides = scales.factors * torch.sign(self._bounded(row) - mean)
        inside = 1.0 if self.bound is None else row.abs() < self.bound
        pushes = self.t * scales.factors * torch.sign(row) - sides * inside
        pushes += counts * (sides.sum() / counts.sum())
        scales.add(pushes * in_gradient_scale(self.strength_at(progress), progress))

    def _bounded(self, row: Tensor) -> Tensor:
        return row if self.bound is None else row.clamp(-self.bound, self.bound)

    def largest(self, graph: ChannelGraph, masks: Masks | None) -> float:
        """Return 0, because the training decides which scales come to zero."""
        scales = self._prepared(graph, masks)
        check_not_nan(scales.names, scales.tensors, 'Polarization')
        return 0.0

    def _prepare(self, graph: ChannelGraph, masks: Masks | None) -> FlatScales:
        return self._kinds.row(graph, self.group_factors(graph))


easypruner_components = hookimpl(lambda: [Polarization])
