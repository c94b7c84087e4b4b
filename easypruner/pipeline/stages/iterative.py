"""The stage Iterative: other stages, several times over, each time a part of the way."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from easypruner.base.checks import check_count, check_name, is_number, refuse
from easypruner.errors import ConfigError, Mistakes
from easypruner.pipeline.expansion import expand
from easypruner.pipeline.stages.masks import SelectMask
from easypruner.plugins.registry import STAGES
from easypruner.strategies import Stage
from easypruner.strategies.stages.state import PruningState

_HALF = 0.5

Way = Callable[[int, int], float]
"""Of a step, from 0, and the number of steps -> the share of the way that is made after it."""


def _exponential(keep: float) -> Way:
    return lambda step, steps: (1 - keep ** (step / steps)) / (1 - keep)


SCHEDULES: Mapping[str, Way | None] = {
    'linear': lambda step, steps: step / steps,
    'exponential': _exponential(_HALF),
    'agp': lambda step, steps: 1 - (1 - step / steps) ** 3,
    'constant': None,
}
"""How far each step goes; None where every step goes all the way by itself."""


class Iterative(Stage):
    """Stands for several rounds of the same stages: prune a little, train, prune again.

    It is replaced by ``steps`` copies of the stages in ``each``. After step i of n, the share of
    the way from the network as it is to what the budget asks for is

    ``'linear'``: ``i / n``;

    ``'exponential'``: ``(1 - k^i) / (1 - k^n)`` with ``k^n = keep``, so that a budget that keeps
    the share ``keep`` of the network takes the same share of what is left in each step. ``keep``
    is 1/2, or given as ``dict(exponential=keep)``;

    ``'agp'``: ``1 - (1 - i / n)^3``, most of it early (Zhu and Gupta, 2017, arXiv 1710.01878);

    ``'constant'``: no share, each step has the whole budget. With ``Zero`` in place of ``Prune``,
    channels that were set to zero may come back before the next step, as in soft filter pruning
    (He et al., 2018, arXiv 1808.06866).

    The copies of a stage are named after it, with ``_1`` to ``_n`` behind. In the final table the
    last step has the rows that its stages have by themselves; an earlier step has only those whose
    ``row`` is given in ``each``, numbered likewise, for every row costs an evaluation. Every
    ``Train`` starts its optimizer and its learning rates anew.

    Args:
        steps: how many rounds.
        each: the stages of one, as in a config; a ``SelectMask`` among them.
        schedule: a name of :data:`SCHEDULES`, or ``dict(exponential=keep)``.
        name: of the stage, which is seen nowhere: its rounds stand in its place.
    """

    def __init__(
        self,
        steps: int,
        each: Sequence[Mapping[str, Any]],
        schedule: str | Mapping[str, float] = 'linear',
        name: str = 'iterative',
    ) -> None:
        super().__init__(name)
        mistakes = Mistakes()
        with mistakes.collect():
            self.steps = check_count(steps, 'steps', 'Iterative')
        with mistakes.collect():
            self._way = _way(schedule)
        with mistakes.collect():
            self.each = _checked(each)
        mistakes.raise_all()

    def expand(self) -> Sequence[Mapping[str, Any]]:
        """Return the stages of all rounds."""
        return [stage for step in range(1, self.steps + 1) for stage in self._round(step)]

    def _round(self, step: int) -> list[dict[str, Any]]:
        last = step == self.steps
        stages = []
        for config in self.each:
            stage = dict(config)
            cls = _class_of(stage)
            arguments = inspect.signature(cls).parameters
            if 'name' in arguments:
                stage['name'] = f'{stage.get("name") or cls.default_name()}_{step}'
            if 'row' in arguments and not last:
                given = stage.get('row')
                stage['row'] = f'{given}_{step}' if given else None
            if issubclass(cls, SelectMask) and self._way is not None:
                stage['part'] = self._part(step, stage.get('part'))
            stages.append(stage)
        return stages

    def _part(self, step: int, inner: Sequence[float] | None) -> tuple[float, float]:
        """Return the shares of the way before and after a step.

        Args:
            step: from 1.
            inner: those within the step, where it consists of steps itself.
        """
        assert self._way is not None
        done = self._way(step - 1, self.steps)
        share = 1.0 if step == self.steps else self._way(step, self.steps)
        if inner is None:
            return done, share
        first, second = ((1 - x) * done + x * share for x in inner)
        return first, second

    def run(self, state: PruningState) -> PruningState:
        """Never called: the run consists of what this stage stands for."""
        raise AssertionError('a stage that stands for others was not expanded')


def _way(schedule: Any) -> Way | None:
    if isinstance(schedule, Mapping):
        keep: Any = schedule.get('exponential')
        if len(schedule) != 1 or not is_number(keep) or not 0 < keep < 1:
            what = (
                'dict(exponential=keep) with the share, above 0 and below 1, that stays in the end'
            )
            refuse(dict(schedule), 'schedule', 'Iterative', what)
        return _exponential(keep)
    return SCHEDULES[check_name(schedule, 'schedule', 'Iterative', SCHEDULES)]


def _checked(each: Any) -> list[dict[str, Any]]:
    """Return the stages of a round, of which those that stand for others are replaced."""
    if not isinstance(each, list | tuple) or not each:
        what = "[dict(type='SelectMask', ...), dict(type='Prune'), dict(type='Train', ...)]"
        refuse(each, 'each', 'Iterative', f'the stages of one round, {what}')
    mistakes = Mistakes()
    stages = [dict(planned.config) for planned in expand(each, mistakes, 'each')]
    mistakes.raise_all()
    if not any(issubclass(_class_of(stage), SelectMask) for stage in stages):
        raise ConfigError(
            'each of Iterative has no SelectMask, so no step would remove more than the one '
            "before; add dict(type='SelectMask', source=dict(type=..., budget=...))"
        )
    return stages


def _class_of(config: Mapping[str, Any]) -> type[Stage]:
    cls = STAGES.class_of(config)
    assert cls is not None, 'the stages of a round have been checked'
    return cls
