"""Regularizer: separates norm scales (Polarization; Zhuang et al., NeurIPS 2020)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from easypruner import Masks, hookimpl
from easypruner.base.checks import check_number
from easypruner.graph import ChannelGraph
from easypruner.strategies.regularizers.norm_scales import FlatScales, ScaleKinds
from easypruner.strategies.regularizers.pushing import RowPenalty


class Polarization(RowPenalty[FlatScales]):
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
        follows from ``t`` and ``strength``, which both have to be tuned for a target size. It holds
        under SGD in both forms. Under Adam and its relatives it holds as a gradient only, and
        scales move by at most their learning rate at each update.

    Values:
        The paper uses a ``strength`` of about 1e-4, and a ``t`` of 1.2 in most experiments. A
        larger ``t`` removes more channels. Under AdamW, raise the learning rate of the norms until
        the plan's reach is above the scales, as for ``GlobalSparsity``.

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
        apply: str | None = None,
    ) -> None:
        super().__init__(strength, strength_schedule, group_strengths, apply)
        owner = type(self).__name__
        self.t = check_number(t, 't', owner, least=0)
        self.bound = None if bound is None else check_number(bound, 'bound', owner, least=0)
        self._kinds = ScaleKinds.of(scales, owner)

    @property
    def selects(self) -> bool:
        return True

    def penalty_of(self, row: FlatScales) -> Tensor:
        values = row.row()
        mean = values[row.factors > 0].mean()
        terms = self.t * values.abs() - (self._bounded(values) - mean).abs()
        return self.strength * (row.factors * terms).sum()

    def pushes_of(self, row: FlatScales) -> Tensor:
        values = row.row()
        counts = (row.factors > 0).to(values)
        mean = (values * counts).sum() / counts.sum()
        sides = row.factors * torch.sign(self._bounded(values) - mean)
        inside = 1.0 if self.bound is None else values.abs() < self.bound
        pushes = self.t * row.factors * torch.sign(values) - sides * inside
        return pushes + counts * (sides.sum() / counts.sum())

    def _bounded(self, values: Tensor) -> Tensor:
        return values if self.bound is None else values.clamp(-self.bound, self.bound)

    def prepare(self, graph: ChannelGraph, masks: Masks | None) -> FlatScales:
        return self._kinds.row(graph, self.group_factors(graph))


easypruner_components = hookimpl(lambda: [Polarization])
