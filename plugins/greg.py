"""Regularizer: a growing L2 penalty (GReg-1; Wang et al., ICLR 2021, arXiv 2012.09243)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from torch import Tensor

from easypruner import Masks, Progress, Schedule, hookimpl
from easypruner.base.checks import check_count, check_name, check_number
from easypruner.errors import ConfigError
from easypruner.graph import ChannelGraph
from easypruner.strategies.measures.units import OVER
from easypruner.strategies.regularizers.pushing import RowPenalty, shrinking_reach
from easypruner.strategies.regularizers.schedule import Ramp
from easypruner.strategies.regularizers.unit_norms import UnitNorms


class GReg(RowPenalty[UnitNorms]):
    """factor / 2 * sum of w^2 over the weights w of removed units, with a growing factor.

    The factor is ``strength`` during the first ``every`` updates of the stage. It increases by
    ``strength`` after each further ``every`` updates, up to ``ceiling`` (algorithm 1 of the paper:
    delta lambda, K_u and tau). The gradient is factor * w.

    Weights shrink exponentially, so the reach of this penalty is an exponent: a reach of R leaves
    exp(-R) of a weight.

    Use when:
        Masks are known, the network has no batch norm or its filters should shrink, and the network
        should adapt slowly while the channels disappear. It needs masks, so put ``SelectMask`` or
        ``LoadMask`` before.

    Fails when:
        The stage is short: with the defaults, 100,000 updates pass until the ceiling. The learning
        rate times the factor approaches 2: then weights oscillate.

    Values:
        The defaults are those of the paper, at its learning rate of 0.001. For a shorter stage,
        ``strength=dict(reach=7)`` chooses the increase.

    Args:
        strength: the increase, delta lambda; or ``dict(reach=R)``.
        every: the number of updates between two increases, K_u.
        ceiling: the largest factor, tau.
        over: ``'producers'``, the filters that produce a unit's channels, as in the paper, or
            ``'group'``, all parameters of the coupled layers. A weight that belongs to removed
            units in two dimensions is pushed for both.
        group_strengths: path, glob or name of groups -> multiplier of the factor there.
    """

    def __init__(
        self,
        strength: float | Mapping[str, float] = 1e-4,
        every: int = 10,
        ceiling: float = 1.0,
        over: str = 'producers',
        group_strengths: Mapping[str, float] | None = None,
        apply: str | None = None,
    ) -> None:
        super().__init__(strength, group_strengths=group_strengths, apply=apply)
        self.every = check_count(every, 'every', 'GReg')
        self.ceiling = check_number(ceiling, 'ceiling', 'GReg', least=0)
        self.over = check_name(over, 'over', 'GReg', OVER)

    def factor(self, update: int) -> float:
        """Return the factor of the penalty after a number of updates of the stage."""
        return min(self.strength * (update // self.every + 1), self.ceiling)

    def strength_for(self, schedule: Schedule, requested: Mapping[str, float]) -> float:
        super().strength_for(schedule, requested)
        most = self._reach_of(schedule, lambda share: np.full_like(share, self.ceiling))
        if not requested['reach'] < most:
            raise ConfigError(
                f'strength={dict(requested)!r} of GReg cannot be met: with a ceiling of '
                f'{self.ceiling}, the reach of its stage is below {most:.3g}; train longer, or '
                f'raise the learning rate or the ceiling{self._higher(requested["reach"], most)}'
            )
        # The reach grows with the strength, until the first increase reaches the ceiling.
        low, high = 0.0, self.ceiling
        for _ in range(60):
            middle = (low + high) / 2
            reach = self._reach_of(schedule, self._growth(middle, schedule.updates))
            low, high = (low, middle) if reach >= requested['reach'] else (middle, high)
        return high

    def _higher(self, reach: float, most: float) -> str:
        """Return a ceiling that allows a reach; the factor needs time to grow to it."""
        return f', as with ceiling={2 * self.ceiling * reach / most:.2g}' if most > 0 else ''

    @property
    def shrinks(self) -> bool:
        return True

    def reach(self, schedule: Schedule) -> float:
        """Return the exponent by which the penalty alone shrinks a weight over ``schedule``."""
        return self._reach_of(schedule, self._growth(self.strength, schedule.updates))

    def _reach_of(self, schedule: Schedule, growth: Ramp) -> float:
        return schedule.reach_under(growth, 1.0, self._becomes_proximal(schedule))

    def _growth(self, strength: float, updates: int) -> Ramp:
        def factor(share: npt.ArrayLike) -> npt.NDArray[np.float64]:
            increases = np.floor(np.round(np.asarray(share) * updates) / self.every) + 1
            return np.minimum(strength * increases, self.ceiling)

        return factor

    def strength_at(self, progress: Progress) -> float:
        return self.factor(progress.update)

    def penalty_of(self, row: UnitNorms) -> Tensor:
        """Return the penalty at its ceiling as a scalar with a gradient."""
        return self.ceiling / 2 * (row.factors * row.squares()).sum()

    def pushes_of(self, row: UnitNorms) -> Tensor:
        return row.factors

    def largest_of(self, row: UnitNorms) -> float:
        return row.largest_norm()

    def needed_reach(self, graph: ChannelGraph, masks: Masks | None) -> float:
        return shrinking_reach(self.largest(graph, masks))

    def prepare(self, graph: ChannelGraph, masks: Masks | None) -> UnitNorms:
        pushed = {n: ~mask for n, mask in self.needed_masks(graph, masks).items()}
        return UnitNorms.of(graph, self.over, self.group_factors(graph), 'GReg', pushed)


easypruner_components = hookimpl(lambda: [GReg])
