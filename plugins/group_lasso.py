"""Regularizer: the norms of whole units (group lasso; Wen et al., 2016, arXiv 1608.03665)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from easypruner import Masks, hookimpl
from easypruner.base.checks import check_flag, check_name, check_number
from easypruner.errors import ConfigError
from easypruner.graph import ChannelGraph
from easypruner.strategies.measures.units import OVER
from easypruner.strategies.regularizers.pushing import RowPenalty
from easypruner.strategies.regularizers.unit_norms import UnitNorms


class GroupLasso(RowPenalty[UnitNorms]):
    """strength * sum of ||theta_u||_2 over all units u, their weights being theta_u.

    This is the group lasso (Yuan and Lin, 2006), as in the paper. The gradient is
    strength * theta_u / ||theta_u||, and 0 where theta_u is zero. The norm of each unit decreases
    by the same amount, whatever its length, so that whole units reach zero.

    With ``over='group'`` and ``alpha`` it is the penalty of DepGraph (Fang et al., 2023, arXiv
    2301.12900, equations 5 and 6): strength / 2 * sum of gamma_u * I_u, where
    I_u = ||theta_u||_2^2 and gamma_u = 2^(alpha * (I_max - I_u) / (I_max - I_min)). I_max and I_min
    are those of the unit's group, and gamma_u counts as a constant. The gradient is
    strength * gamma_u * theta_u. The paper's equation lacks the factor 1/2; with it, the strength
    is that of the released code, which computes gamma_u from the norms instead of their squares. If
    all I_u of a group are equal, gamma_u is 1.

    Use when:
        The network has no batch norm, or whole coupled groups should shrink, as in transformers.
        With ``masked=True`` it pushes only the channels that masks remove, as ``MaskSparsity`` does
        for scales.

    Fails when:
        Training time is tight: the penalty reads and writes all weights at every update, which adds
        more than half of an optimizer step. With a batch norm behind a filter, shrinking the filter
        does not change the output until it is near zero. Under SGD it holds in both forms. Under
        other optimizers, the proximal form is exact but shrinks all units alike, whatever the loss
        says: set ``masked=True``, or a reach below the typical norm. With ``alpha``, it holds in
        the proximal form under any optimizer.

    Values:
        DepGraph uses a ``strength`` of 1e-4 and an ``alpha`` of 4. ``regularize_every=16`` of
        ``Train`` reduces the cost to a sixteenth.

    Args:
        strength: the factor λ of the penalty. ``dict(reach=R)`` chooses it from the schedule;
            without ``alpha``, R is the amount by which the norm of a unit can decrease.
        over: ``'producers'``, the weights that produce a unit's channels, or ``'group'``, all
            parameters of the coupled layers, with the weights that read the channels, norm scales
            and biases. A weight that belongs to a unit in two dimensions counts in both.
        masked: whether to push only the units that masks remove.
        alpha: the exponent of DepGraph; None for the group lasso.
    """

    def __init__(
        self,
        strength: float | Mapping[str, float],
        over: str = 'producers',
        masked: bool = False,
        alpha: float | None = None,
        strength_schedule: str | Mapping[str, float] = 'constant',
        group_strengths: Mapping[str, float] | None = None,
        apply: str | None = None,
    ) -> None:
        super().__init__(strength, strength_schedule, group_strengths, apply)
        if alpha is not None and self.loop is not None:
            raise ConfigError(
                f'strength={strength!r} of GroupLasso with alpha={alpha!r}: with alpha, norms '
                'shrink exponentially and do not reach zero; leave alpha out, or give a number'
            )
        self.over = check_name(over, 'over', 'GroupLasso', OVER)
        self.masked = check_flag(masked, 'masked', 'GroupLasso')
        self.alpha = None if alpha is None else check_number(alpha, 'alpha', 'GroupLasso', least=0)

    @property
    def shrinks(self) -> bool:
        return self.alpha is not None

    def penalty_of(self, row: UnitNorms) -> Tensor:
        if self.alpha is None:
            return self.strength * (row.factors * row.norms()).sum()
        squares = row.squares()
        gamma = _reweighting(row, squares.detach(), self.alpha)
        return self.strength / 2 * (row.factors * gamma * squares).sum()

    def pushes_of(self, row: UnitNorms) -> Tensor:
        squares = row.squares()
        if self.alpha is None:
            return row.factors * torch.where(squares > 0, squares.rsqrt(), 0)
        return row.factors * _reweighting(row, squares, self.alpha)

    def largest_of(self, row: UnitNorms) -> float:
        """Return the largest norm of a unit that is pushed; 0 with ``alpha``.

        With ``alpha``, a unit shrinks exponentially, at a rate that depends on its group.
        """
        return 0.0 if self.alpha is not None else row.largest_norm()

    def magnitudes(self, graph: ChannelGraph, masks: Masks | None) -> dict[str, float]:
        return self._prepared(graph, masks).largest_norms()

    def prepare(self, graph: ChannelGraph, masks: Masks | None) -> UnitNorms:
        pushed = None
        if self.masked:
            pushed = {n: ~mask for n, mask in self.needed_masks(graph, masks).items()}
        return UnitNorms.of(graph, self.over, self.group_factors(graph), 'GroupLasso', pushed)


def _reweighting(units: UnitNorms, squares: Tensor, alpha: float) -> Tensor:
    """Return gamma of each unit, ``(units,)``."""
    blank = squares.new_zeros(units.families)
    most = blank.scatter_reduce(0, units.family, squares, 'amax', include_self=False)
    least = blank.scatter_reduce(0, units.family, squares, 'amin', include_self=False)
    span = (most - least)[units.family]
    below = most[units.family] - squares
    return torch.exp2(alpha * torch.where(span > 0, below / span, 0))


easypruner_components = hookimpl(lambda: [GroupLasso])
