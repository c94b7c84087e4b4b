"""Regularizer: the norms of whole units (group lasso; Wen et al., 2016, arXiv 1608.03665)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from easypruner import Component, Masks, Progress, Regularizer, hookimpl
from easypruner.base.checks import check_flag, check_name, check_number
from easypruner.errors import EasyPrunerError
from easypruner.graph import ChannelGraph
from easypruner.strategies.measures.units import OVER
from easypruner.strategies.regularizers.pushing import PlanOnce, check_numbers, scaled
from easypruner.strategies.regularizers.unit_norms import UnitNorms


class GroupLasso(Regularizer):
    """strength * sum of ||theta_u||_2 over all units u (Yuan and Lin, 2006; the paper's sum).

    theta_u is all that belongs to the unit. The gradient is strength * theta_u / ||theta_u||, and
    nothing where theta_u is zero: the norm of each unit comes down by the same steps, whatever its
    length, so that whole units reach zero.

    With ``over='group'`` and ``alpha`` it is the penalty of DepGraph (Fang et al., 2023, arXiv
    2301.12900, equations 5 and 6): strength / 2 * sum of gamma_u * I_u, where
    I_u = ||theta_u||_2^2 and gamma_u = 2^(alpha * (I_max - I_u) / (I_max - I_min)), I_max and I_min
    of the unit's group; gamma_u counts as a constant. The gradient is
    strength * gamma_u * theta_u. The half, which the paper's equation has not, is how its released
    code counts the strength; that code takes gamma_u of the norms rather than of their squares.
    Where all I_u of a group are equal, gamma_u is 1.

    Args:
        strength: lambda; DepGraph uses 1e-4. ``dict(reach=R)`` picks it from the schedule: without
            ``alpha``, R is how far a unit's norm comes down.
        over: ``'producers'``, the weights that make a unit's channels, or ``'group'``, all
            parameters of the coupled layers, readers, scales and biases among them. A weight that
            belongs to a unit in two dimensions counts in both.
        masked: whether only the units that masks remove are pushed.
        alpha: of DepGraph; 4 in the paper. None for group lasso proper.
        strength_schedule: ``'constant'``, ``'linear'``, ``'cosine'``, ``'warmup'`` or
            ``dict(warmup=share)``.
        group_strengths: path, glob or name of groups -> factor of the strength there.
    """

    def __init__(
        self,
        strength: float | Mapping[str, float],
        over: str = 'producers',
        masked: bool = False,
        alpha: float | None = None,
        strength_schedule: str | Mapping[str, float] = 'constant',
        group_strengths: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(strength, strength_schedule, group_strengths)
        self.over = check_name(over, 'over', 'GroupLasso', OVER)
        self.masked = check_flag(masked, 'masked', 'GroupLasso')
        self.alpha = None if alpha is None else check_number(alpha, 'alpha', 'GroupLasso', least=0)
        self._planned = PlanOnce(self._plan)

    def penalty(self, graph: ChannelGraph, masks: Masks | None) -> Tensor:
        units = self._planned(graph, masks)
        if self.alpha is None:
            return self.strength * (units.factors * units.norms()).sum()
        squares = units.squares()
        gamma = _reweighting(units, squares.detach(), self.alpha)
        return self.strength / 2 * (units.factors * gamma * squares).sum()

    @torch.no_grad()
    def add_gradient(self, graph: ChannelGraph, masks: Masks | None, progress: Progress) -> None:
        units = self._planned(graph, masks)
        squares = units.squares()
        if self.alpha is None:
            shrink = torch.where(squares > 0, squares.rsqrt(), 0)
        else:
            shrink = _reweighting(units, squares, self.alpha)
        units.add(shrink * units.factors * scaled(self.strength_at(progress), progress))

    @torch.no_grad()
    def largest(self, graph: ChannelGraph, masks: Masks | None) -> float:
        """Return the largest norm of a unit that is pushed; 0 with ``alpha``.

        Then a unit shrinks by a share of itself, and how much depends on the others of its group.
        """
        units = self._planned(graph, masks)
        check_numbers(units.names, units.tensors, 'GroupLasso')
        if self.alpha is not None:
            return 0.0
        return float(torch.where(units.factors > 0, units.norms() / units.factors, 0).max())

    def _plan(self, graph: ChannelGraph, masks: Masks | None) -> UnitNorms:
        pushed = None
        if self.masked:
            pushed = {n: ~mask for n, mask in self.needed_masks(graph, masks).items()}
        units = UnitNorms.of(graph, self.over, self.group_factors(graph), pushed)
        asked = pushed is None or any(bool(mask.any()) for mask in pushed.values())
        if units is None or (asked and not bool(units.factors.any())):
            raise EasyPrunerError(
                f'GroupLasso pushes the weights of units to zero, but none are to be pushed in '
                f'this {type(graph.model).__name__}: no channel can be pruned, no weight of one '
                'trains, or the masks or group_strengths leave out all that do'
            )
        return units


def _reweighting(units: UnitNorms, squares: Tensor, alpha: float) -> Tensor:
    """Return gamma of each unit."""
    blank = squares.new_zeros(units.families)
    most = blank.scatter_reduce(0, units.family, squares, 'amax', include_self=False)
    least = blank.scatter_reduce(0, units.family, squares, 'amin', include_self=False)
    span = (most - least)[units.family]
    below = most[units.family] - squares
    return torch.exp2(alpha * torch.where(span > 0, below / span, 0))


@hookimpl
def easypruner_components() -> Iterable[type[Component]]:
    return [GroupLasso]
