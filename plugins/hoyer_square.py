"""Regularizer: the squared Hoyer measure (DeepHoyer; Yang et al., ICLR 2020, arXiv 1908.09979)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from easypruner import Component, Masks, Progress, Regularizer, hookimpl
from easypruner.base.checks import check_name
from easypruner.errors import EasyPrunerError
from easypruner.graph import ChannelGraph
from easypruner.strategies.regularizers.norm_scales import FlatScales, norms_of, nothing_to_push
from easypruner.strategies.regularizers.pushing import PlanOnce, check_numbers, scaled
from easypruner.strategies.regularizers.unit_norms import UnitNorms

ON = ('scales', 'weights')
_NOTHING = 1e-30
"""A sum of squares from which on a layer counts as one of zeros: the slope grows as 1 / size."""


class HoyerSquare(Regularizer):
    """strength * sum over layers of (sum of |v|)^2 / (sum of v^2), v one value of each channel.

    A measure of how many of the values are not zero: n where all n are alike, 1 where one is left.
    It does not change with the values' size, so it pushes the small ones of a layer down and the
    large ones up. v is the layer's norm scales (equation 3 of the paper on them), or the L2 norms
    of the filters that make its channels (equation 4). A layer of zeros counts as nothing.

    Args:
        strength: lambda; the paper picks it for each network. ``dict(reach=R)`` picks it from the
            schedule, for a slope of 1.
        on: ``'scales'`` or ``'weights'``.
        scales: the kinds of norm whose scales these are, of
            :data:`easypruner.strategies.regularizers.norm_scales.SCALES`.
        strength_schedule: ``'constant'``, ``'linear'``, ``'cosine'``, ``'warmup'`` or
            ``dict(warmup=share)``.
        group_strengths: path, glob or name of groups -> factor of the strength there. A norm over
            the channels of several groups has the mean over its channels.
    """

    def __init__(
        self,
        strength: float | Mapping[str, float],
        on: str = 'scales',
        scales: str | Sequence[str] = ('batch_norm',),
        strength_schedule: str | Mapping[str, float] = 'constant',
        group_strengths: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(strength, strength_schedule, group_strengths)
        self.on = check_name(on, 'on', 'HoyerSquare', ON)
        self.scales = (scales,) if isinstance(scales, str) else tuple(scales)
        self._norms = norms_of(scales, 'HoyerSquare')
        self._planned = PlanOnce(self._plan)

    def penalty(self, graph: ChannelGraph, masks: Masks | None) -> Tensor:
        layers = self._planned(graph, masks)
        values = layers.values()
        ones, twos = layers.sums(values), layers.sums(values.square())
        measure = torch.where(twos > _NOTHING, ones.square() / twos.clamp(min=_NOTHING), 0)
        return self.strength * (layers.factors * measure).sum()

    @torch.no_grad()
    def add_gradient(self, graph: ChannelGraph, masks: Masks | None, progress: Progress) -> None:
        layers = self._planned(graph, masks)
        values = layers.values()
        ones, twos = layers.sums(values), layers.sums(values.square())
        ratio = torch.where(twos > _NOTHING, ones / twos, 0)
        slope = 2 * ratio * layers.factors * scaled(self.strength_at(progress), progress)
        layers.add(slope, ratio, values)

    def largest(self, graph: ChannelGraph, masks: Masks | None) -> float:
        """Return 0: which channels come to zero is for the training to find out."""
        row = self._planned(graph, masks).row
        check_numbers(row.names, row.tensors, 'HoyerSquare')
        return 0.0

    def _plan(self, graph: ChannelGraph, masks: Masks | None) -> _Layers:
        strengths = self.group_factors(graph)
        if self.on == 'scales':
            scales = FlatScales.of(graph, self._norms, strengths)
            if scales is not None and bool(scales.factors.any()):
                return _Layers.of(scales, scales.layer, len(scales.names))
            raise nothing_to_push(graph, 'HoyerSquare', self.scales)
        units = UnitNorms.of(graph, 'producers', strengths, by_layer=True)
        if units is not None and bool(units.factors.any()):
            return _Layers.of(units, units.family, units.families)
        raise EasyPrunerError(
            'HoyerSquare pushes the weights that make channels, but none are to be pushed in '
            f'this {type(graph.model).__name__}: no channel can be pruned, no weight of one '
            'trains, or group_strengths leave out all that do'
        )


@dataclass(frozen=True)
class _Layers:
    """Values of channels in a row.

    Attributes:
        row: what they are values of.
        layer: of each value, the number of its layer.
        factors: of each layer, of the strength.
    """

    row: FlatScales | UnitNorms
    layer: Tensor
    factors: Tensor

    @classmethod
    def of(cls, row: FlatScales | UnitNorms, layer: Tensor, layers: int) -> _Layers:
        blank = row.factors.new_zeros(layers)
        totals = blank.index_add(0, layer, row.factors)
        counts = blank.index_add(0, layer, torch.ones_like(row.factors))
        return cls(row, layer, totals / counts)

    def values(self) -> Tensor:
        """Return the magnitudes."""
        return self.row.norms() if isinstance(self.row, UnitNorms) else self.row.row().abs()

    def sums(self, values: Tensor) -> Tensor:
        """Add up each layer."""
        return torch.zeros_like(self.factors).index_add(0, self.layer, values)

    def add(self, slope: Tensor, ratio: Tensor, values: Tensor) -> None:
        """Add slope * (1 - ratio * |v|) towards the size of each value to the gradients."""
        slope, ratio = (values_of.index_select(0, self.layer) for values_of in (slope, ratio))
        if isinstance(self.row, UnitNorms):
            self.row.add(slope * (torch.where(values > 0, 1 / values, 0) - ratio))
        else:
            row = self.row.row()
            self.row.add(slope * (torch.sign(row) - ratio * row))


@hookimpl
def easypruner_components() -> Iterable[type[Component]]:
    return [HoyerSquare]
