"""Regularizer: an L2 penalty that grows (GReg-1; Wang et al., ICLR 2021, arXiv 2012.09243)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from easypruner import Component, Masks, Progress, Regularizer, Schedule, hookimpl
from easypruner.base.checks import check_count, check_name, check_number
from easypruner.errors import ConfigError, EasyPrunerError
from easypruner.graph import ChannelGraph
from easypruner.strategies.measures.units import OVER
from easypruner.strategies.regularizers.pushing import (
    PlanOnce,
    check_numbers,
    scaled,
    shrinking_reach,
)
from easypruner.strategies.regularizers.schedule import Ramp
from easypruner.strategies.regularizers.unit_norms import UnitNorms


class GReg(Regularizer):
    """factor / 2 * sum of w^2 over the weights w of the units that will go, the factor growing.

    It is ``strength`` over the first ``every`` updates of the stage, and rises by as much after
    each further ``every``, up to ``ceiling`` (algorithm 1 of the paper: delta lambda, K_u and tau).
    The gradient is factor * w.

    Such a penalty shrinks a weight by a share of itself. What is here called the reach is the
    exponent of that: a reach of R brings a weight to exp(-R) of what it was. The paper's defaults
    need 100,000 updates to get to the ceiling, at its learning rate of 0.001; for a shorter stage
    let ``strength=dict(reach=7)`` pick the rise.

    Args:
        strength: the rise, delta lambda; or ``dict(reach=R)``.
        every: updates between two rises, K_u.
        ceiling: the largest factor, tau.
        over: ``'producers'``, the filters that make a unit's channels, as in the paper, or
            ``'group'``, all parameters of the coupled layers. A weight that belongs to removed
            units in two dimensions is pushed for both.
        group_strengths: path, glob or name of groups -> what the factor is multiplied with there.
    """

    def __init__(
        self,
        strength: float | Mapping[str, float] = 1e-4,
        every: int = 10,
        ceiling: float = 1.0,
        over: str = 'producers',
        group_strengths: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(strength, group_strengths=group_strengths)
        self.every = check_count(every, 'every', 'GReg')
        self.ceiling = check_number(ceiling, 'ceiling', 'GReg', least=0)
        self.over = check_name(over, 'over', 'GReg', OVER)
        self._planned = PlanOnce(self._plan)

    def factor(self, update: int) -> float:
        """Return the factor of the penalty after that many updates of the stage."""
        return min(self.strength * (update // self.every + 1), self.ceiling)

    def schedule(self, schedule: Schedule) -> None:
        asked = self._asked_strength
        if not isinstance(asked, Mapping):
            return
        most = schedule.reach_under(lambda share: np.full_like(share, self.ceiling))
        if not asked['reach'] < most:
            raise ConfigError(
                f'GReg asks for a reach of {asked["reach"]}, but under its ceiling of '
                f'{self.ceiling} its stage comes to less than {most:.3g}; train longer, or raise '
                'the learning rate or the ceiling'
            )
        # The reach grows with the strength, and is all there is once the first rise is the ceiling.
        low, high = 0.0, self.ceiling
        for _ in range(60):
            middle = (low + high) / 2
            enough = schedule.reach_under(self._growth(middle, schedule.updates)) >= asked['reach']
            low, high = (low, middle) if enough else (middle, high)
        self.strength = high

    def reach(self, schedule: Schedule) -> float:
        """Return the exponent by which the penalty alone shrinks a weight over ``schedule``."""
        return schedule.reach_under(self._growth(self.strength, schedule.updates))

    def _growth(self, strength: float, updates: int) -> Ramp:
        def factor(share: npt.ArrayLike) -> npt.NDArray[np.float64]:
            rises = np.floor(np.round(np.asarray(share) * updates) / self.every) + 1
            return np.minimum(strength * rises, self.ceiling)

        return factor

    def penalty(self, graph: ChannelGraph, masks: Masks | None) -> Tensor:
        """Return the penalty at its ceiling as a scalar that has a gradient."""
        units = self._planned(graph, masks)
        return self.ceiling / 2 * (units.factors * units.squares()).sum()

    @torch.no_grad()
    def add_gradient(self, graph: ChannelGraph, masks: Masks | None, progress: Progress) -> None:
        units = self._planned(graph, masks)
        units.add(units.factors * scaled(self.factor(progress.update), progress))

    @torch.no_grad()
    def largest(self, graph: ChannelGraph, masks: Masks | None) -> float:
        units = self._planned(graph, masks)
        check_numbers(units.names, units.tensors, 'GReg')
        return float(torch.where(units.factors > 0, units.norms() / units.factors, 0).max())

    def needed_reach(self, graph: ChannelGraph, masks: Masks | None) -> float:
        return shrinking_reach(self.largest(graph, masks))

    def _plan(self, graph: ChannelGraph, masks: Masks | None) -> UnitNorms:
        pushed = {n: ~mask for n, mask in self.needed_masks(graph, masks).items()}
        units = UnitNorms.of(graph, self.over, self.group_factors(graph), pushed)
        asked = any(bool(mask.any()) for mask in pushed.values())
        if units is None or (asked and not bool(units.factors.any())):
            raise EasyPrunerError(
                'GReg pushes the weights of removed units to zero, but none are to be pushed in '
                f'this {type(graph.model).__name__}: none of it trains, '
                'or group_strengths leave it out'
            )
        return units


@hookimpl
def easypruner_components() -> Iterable[type[Component]]:
    return [GReg]
