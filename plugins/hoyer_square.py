"""Regularizer: the squared Hoyer measure (DeepHoyer; Yang et al., ICLR 2020, arXiv 1908.09979)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim import Optimizer

from easypruner import Masks, Progress, hookimpl
from easypruner.base.checks import check_name
from easypruner.graph import ChannelGraph
from easypruner.strategies.regularizers.norm_scales import FlatScales, ScaleKinds
from easypruner.strategies.regularizers.pushing import PushedRow, RowPenalty
from easypruner.strategies.regularizers.unit_norms import UnitNorms

ON = ('scales', 'weights')
"""The values of channels: their norm scales, or the norms of their filters."""
_ZERO = 1e-30
"""The sum of squares below which a layer counts as zero, because the slope grows as 1 / size."""


@dataclass(frozen=True)
class _Layers(PushedRow):
    """The values of all channels in one row.

    Attributes:
        values: the scales, or the units whose norms are the values.
        layer: for each value, the number of its layer.
        factors: for each layer, the factor of the strength.
    """

    values: FlatScales | UnitNorms
    layer: Tensor
    factors: Tensor

    @classmethod
    def of(cls, values: FlatScales | UnitNorms, layer: Tensor, layers: int) -> _Layers:
        blank = values.factors.new_zeros(layers)
        totals = blank.index_add(0, layer, values.factors)
        counts = blank.index_add(0, layer, torch.ones_like(values.factors))
        return cls(values.names, values.tensors, values, layer, totals / counts)

    def magnitudes(self) -> Tensor:
        """Return the magnitudes of the values."""
        own = self.values
        return own.norms() if isinstance(own, UnitNorms) else own.row().abs()

    def sums(self, values: Tensor) -> Tensor:
        """Return the sum of the values of each layer."""
        return torch.zeros_like(self.factors).index_add(0, self.layer, values)

    def add(self, pushes: Tensor) -> None:
        self.values.add(pushes)

    def move(self, pushes: Tensor, optimizer: Optimizer, progress: Progress) -> None:
        self.values.move(pushes, optimizer, progress)


class HoyerSquare(RowPenalty[_Layers]):
    """strength * sum over layers of (sum of |v|)^2 / (sum of v^2), with a value v for each channel.

    The quotient measures how many of the n values are not zero: it is n if all are equal, and 1 if
    one is left. It does not depend on the scale of the values, so it pushes the small values of a
    layer down and the large ones up. The values are the layer's norm scales (equation 3 of the
    paper), or the L2 norms of the filters that produce its channels (equation 4). A layer of zeros
    contributes 0.

    Use when:
        Channels of each layer should separate into few large and many small ones, without
        shrinking the large ones as L1 does. ``on='weights'`` needs no batch norm.

    Fails when:
        The strength is high from the start: then a layer may keep a single channel, because nothing
        bounds how few remain. ``on='weights'`` reads all weights at every update; see its cost. It
        holds under SGD in both forms. Under Adam and its relatives it holds as a gradient only, and
        values move by at most their learning rate at each update.

    Values:
        The paper chooses the ``strength`` for each network. Start with one at which the penalty is
        about a tenth of the loss, with ``strength_schedule='linear'``, and
        ``regularize_every=16`` for ``on='weights'``. Under AdamW, raise the learning rate of the
        norms until the plan's reach is above the scales, as for ``GlobalSparsity``.

    Args:
        strength: the factor λ of the penalty; ``dict(reach=R)`` chooses it from the schedule, for a
            slope of 1.
        on: ``'scales'`` or ``'weights'``.
        scales: the kinds of norm whose scales are pushed: ``'batch_norm'``, ``'instance_norm'``,
            ``'group_norm'`` or ``'layer_norm'``, or several.
        group_strengths: path, glob or name of groups -> factor of the strength there. A norm over
            the channels of several groups gets the mean of their factors.
    """

    def __init__(
        self,
        strength: float | Mapping[str, float],
        on: str = 'scales',
        scales: str | Sequence[str] = ('batch_norm',),
        strength_schedule: str | Mapping[str, float] = 'constant',
        group_strengths: Mapping[str, float] | None = None,
        apply: str | None = None,
    ) -> None:
        super().__init__(strength, strength_schedule, group_strengths, apply)
        self.on = check_name(on, 'on', 'HoyerSquare', ON)
        self._kinds = ScaleKinds.of(scales, 'HoyerSquare')

    @property
    def selects(self) -> bool:
        return True

    def penalty_of(self, row: _Layers) -> Tensor:
        values = row.magnitudes()
        ones, twos = row.sums(values), row.sums(values.square())
        measure = torch.where(twos > _ZERO, ones.square() / twos.clamp(min=_ZERO), 0)
        return self.strength * (row.factors * measure).sum()

    def pushes_of(self, row: _Layers) -> Tensor:
        values = row.magnitudes()
        ones, twos = row.sums(values), row.sums(values.square())
        ratio = torch.where(twos > _ZERO, ones / twos, 0)
        slope = (2 * ratio * row.factors).index_select(0, row.layer)
        ratio = ratio.index_select(0, row.layer)
        if isinstance(row.values, UnitNorms):
            return slope * (torch.where(values > 0, 1 / values, 0) - ratio)
        scales = row.values.row()
        return slope * (torch.sign(scales) - ratio * scales)

    def prepare(self, graph: ChannelGraph, masks: Masks | None) -> _Layers:
        factors = self.group_factors(graph)
        if self.on == 'scales':
            scales = self._kinds.row(graph, factors)
            return _Layers.of(scales, scales.layer, len(scales.names))
        units = UnitNorms.of(graph, 'producers', factors, 'HoyerSquare', by_layer=True)
        return _Layers.of(units, units.family, units.families)


easypruner_components = hookimpl(lambda: [HoyerSquare])
