"""The stage Iterative: repeats other stages, so that channels are removed in several cuts."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from easypruner.base.checks import check_count, check_name, is_number, refuse
from easypruner.errors import ConfigError, Mistakes
from easypruner.pipeline.preflight import expand
from easypruner.pipeline.stages.masks import SelectMask
from easypruner.plugins.registry import STAGES
from easypruner.strategies import Stage
from easypruner.strategies.stages.state import PruningState

Progress = Callable[[int, int], float]
"""(number of finished rounds, number of all rounds) -> progress towards the budget, from 0 to 1."""


def _exponential(keep: float) -> Progress:
    return lambda rounds, steps: (1 - keep ** (rounds / steps)) / (1 - keep)


SCHEDULES: Mapping[str, Progress | None] = {
    'linear': lambda rounds, steps: rounds / steps,
    'exponential': _exponential(0.5),
    'agp': lambda rounds, steps: 1 - (1 - rounds / steps) ** 3,
    'constant': None,
}
"""Name -> progress after each round; None if every round has the whole budget."""
_MOST_STEPS = 1000


class Iterative(Stage):
    """Repeats the same stages: it prunes a little, trains, and prunes again.

    A run replaces this stage by ``steps`` copies of the stages in ``each``. After round i of n, the
    progress from the current network towards the budget is

    - ``'linear'``: ``i / n``;
    - ``'exponential'``: ``(1 - k^i) / (1 - k^n)`` with ``k^n = keep``. A budget that keeps the
      share ``keep`` of the network then removes the same share of the remaining network in each
      round. ``keep`` is 1/2, or given as ``dict(exponential=keep)``;
    - ``'agp'``: ``1 - (1 - i / n)^3``, which removes most of it early (Zhu and Gupta, 2017, arXiv
      1710.01878);
    - ``'constant'``: each round has the whole budget. With ``Zero`` in place of ``Prune``, channels
      that were set to zero can return before the next round, as in soft filter pruning (He et al.,
      2018, arXiv 1808.06866).

    The copies of a stage have its name with ``_1`` to ``_n`` appended. In the final table, the last
    round has the rows that its stages have by default. An earlier round only has the rows that
    ``each`` names, with its number appended, because every row costs an evaluation. Every ``Train``
    starts a new optimizer and its schedule of learning rates.

    Use when:
        Much is removed: scores are computed again after each cut, and the network recovers in
        between. Sources that only hold for small changes need it, such as ``Taylor`` and
        ``Synflow``.

    Fails when:
        Training time is tight: each round trains. A source that returns whole masks, such as
        ``MaskFile``, cannot remove them in parts.

    Values:
        3 to 10 ``steps`` with ``'agp'`` or ``'exponential'``. Set ``keep`` of the schedule to the
        ``keep`` of the budget.

    Args:
        steps: the number of rounds.
        each: the stages of one round, as in a config; one of them is a ``SelectMask``.
        schedule: ``'linear'``, ``'exponential'``, ``'agp'`` or ``'constant'``, or
            ``dict(exponential=keep)``.
        name: the name of the stage. It is not shown, because the rounds replace the stage.
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
            self.steps = check_count(steps, 'steps', 'Iterative', most=_MOST_STEPS)
        with mistakes.collect():
            self._progress = _progress_of(schedule)
        with mistakes.collect():
            self.each = _checked(each)
        mistakes.raise_all()

    def expand(self) -> Sequence[Mapping[str, Any]]:
        """Return the configs of the stages of all rounds."""
        return [stage for number in range(1, self.steps + 1) for stage in self._round(number)]

    def _round(self, number: int) -> list[dict[str, Any]]:
        last = number == self.steps
        stages = []
        for config in self.each:
            stage = dict(config)
            cls = _class_of(stage)
            arguments = inspect.signature(cls).parameters
            if 'name' in arguments:
                stage['name'] = f'{stage.get("name") or cls.default_name()}_{number}'
            if 'row' in arguments and not last:
                row = stage.get('row')
                stage['row'] = f'{row}_{number}' if row else None
            if issubclass(cls, SelectMask) and self._progress is not None:
                stage['part'] = self._part(self._progress, number, stage.get('part'))
            stages.append(stage)
        return stages

    def _part(
        self, progress: Progress, number: int, inner: Sequence[float] | None
    ) -> tuple[float, float]:
        """Return the progress before and after a round.

        Args:
            progress: the schedule.
            number: the number of the round, from 1.
            inner: the progress within the round, if it consists of rounds itself.
        """
        done = progress(number - 1, self.steps)
        share = 1.0 if number == self.steps else progress(number, self.steps)
        if inner is None:
            return done, share
        first, second = ((1 - x) * done + x * share for x in inner)
        return first, second

    def run(self, state: PruningState) -> PruningState:
        """Never called, because a run replaces this stage by its rounds."""
        raise AssertionError('a stage that stands for others was not expanded')


def _progress_of(schedule: Any) -> Progress | None:
    if isinstance(schedule, Mapping):
        keep: Any = schedule.get('exponential')
        if len(schedule) != 1 or not is_number(keep) or not 0 < keep < 1:
            expected = 'dict(exponential=keep) with the final share, above 0 and below 1'
            refuse(dict(schedule), 'schedule', 'Iterative', expected)
        return _exponential(keep)
    return SCHEDULES[check_name(schedule, 'schedule', 'Iterative', SCHEDULES)]


def _checked(each: Any) -> list[dict[str, Any]]:
    """Return the stages of a round. Stages that stand for others are expanded."""
    if not isinstance(each, list | tuple) or not each:
        stages = "[dict(type='SelectMask', ...), dict(type='Prune'), dict(type='Train', ...)]"
        refuse(each, 'each', 'Iterative', f'the stages of one round, such as {stages}')
    mistakes = Mistakes()
    configs = [dict(planned.config) for planned in expand(each, mistakes, 'each')]
    mistakes.raise_all()
    if not any(issubclass(_class_of(config), SelectMask) for config in configs):
        raise ConfigError(
            'each of Iterative does not have a SelectMask, so no round would remove more than the '
            "first; add dict(type='SelectMask', source=dict(type=..., budget=...))"
        )
    return configs


def _class_of(config: Mapping[str, Any]) -> type[Stage]:
    cls = STAGES.class_of(config)
    assert cls is not None, 'the stages of a round have been checked'
    return cls
