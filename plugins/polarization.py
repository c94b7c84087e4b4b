"""Regularizer: pulls norm scales apart (Polarization; Zhuang et al., NeurIPS 2020)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from easypruner import Component, Masks, Progress, Regularizer, hookimpl
from easypruner.base.checks import check_number
from easypruner.graph import ChannelGraph
from easypruner.strategies.regularizers.norm_scales import FlatScales, norms_of, nothing_to_push
from easypruner.strategies.regularizers.pushing import PlanOnce, check_numbers, scaled


class Polarization(Regularizer):
    """strength * sum of (t * |gamma| - |gamma - mean of all gamma|) over all norm scales.

    Equation 2 of the paper. L1 pushes every scale; this one pushes those well under the mean to
    zero and lifts the others away from it, so that scales part into two heaps. The mean is one
    over the whole network, and has a gradient.

    The paper's scales are in 0..a, to which its code clips them, with a = 1. Unbounded, those above
    the mean are pushed up as long as most are below it. With ``bound`` a magnitude above it counts
    as the bound in the second term: there only L1 is left, which brings it back.

    Args:
        strength: lambda; about 1e-4 in the paper. ``dict(reach=R)`` picks it from the schedule.
        t: the weight of the L1 part; 1.2 in most of the paper.
        bound: a, above the mean of the scales; None for none.
        scales: the kinds of norm whose scales these are, of
            :data:`easypruner.strategies.regularizers.norm_scales.SCALES`.
        strength_schedule: ``'constant'``, ``'linear'``, ``'cosine'``, ``'warmup'`` or
            ``dict(warmup=share)``.
        group_strengths: path, glob or name of groups -> factor of their scales' terms; scales with
            0 do not count in the mean.
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
        self.scales = (scales,) if isinstance(scales, str) else tuple(scales)
        self._norms = norms_of(scales, 'Polarization')
        self._planned = PlanOnce(self._plan)

    def penalty(self, graph: ChannelGraph, masks: Masks | None) -> Tensor:
        plan = self._planned(graph, masks)
        row = plan.row()
        mean = row[plan.factors > 0].mean()
        terms = self.t * row.abs() - (self._bounded(row) - mean).abs()
        return self.strength * (plan.factors * terms).sum()

    @torch.no_grad()
    def add_gradient(self, graph: ChannelGraph, masks: Masks | None, progress: Progress) -> None:
        plan = self._planned(graph, masks)
        row = plan.row()
        counts = (plan.factors > 0).to(row)
        mean = (row * counts).sum() / counts.sum()
        sides = plan.factors * torch.sign(self._bounded(row) - mean)
        inside = 1.0 if self.bound is None else row.abs() < self.bound
        pushes = self.t * plan.factors * torch.sign(row) - sides * inside
        pushes += counts * (sides.sum() / counts.sum())
        plan.add(pushes * scaled(self.strength_at(progress), progress))

    def _bounded(self, row: Tensor) -> Tensor:
        return row if self.bound is None else row.clamp(-self.bound, self.bound)

    def largest(self, graph: ChannelGraph, masks: Masks | None) -> float:
        """Return 0: which scales come to zero is for the training to find out."""
        plan = self._planned(graph, masks)
        check_numbers(plan.names, plan.tensors, 'Polarization')
        return 0.0

    def _plan(self, graph: ChannelGraph, masks: Masks | None) -> FlatScales:
        plan = FlatScales.of(graph, self._norms, self.group_factors(graph))
        if plan is None or not bool(plan.factors.any()):
            raise nothing_to_push(graph, 'Polarization', self.scales)
        return plan


@hookimpl
def easypruner_components() -> Iterable[type[Component]]:
    return [Polarization]
