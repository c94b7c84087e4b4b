"""Optuna proposes the values of trials; between(...) is a range that it may propose from."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from easypruner.base.checks import check_count, check_name, check_number, refuse
from easypruner.errors import ConfigError
from easypruner.study.sweeps import Sweep

SAMPLERS = ('tpe', 'random', 'gp')
_DIGITS = 6


@dataclass(frozen=True)
class Between:
    """A range of values.

    Attributes:
        low: the lowest value.
        high: the highest.
        log: whether values are proposed by their logarithms.
        step: the distance of values from each other, counted from the lowest; None if any may be.
    """

    low: float
    high: float
    log: bool = False
    step: float | None = None

    @property
    def whole(self) -> bool:
        """Whether values are whole numbers."""
        return isinstance(self.low, int) and isinstance(self.high, int)


def between(low: float, high: float, log: bool = False, step: float | None = None) -> Between:
    """Return a range of values for ``tune(..., trials=N)``; whole numbers if both ends are.

    Args:
        low: the lowest value.
        high: the highest.
        log: whether values are proposed by their logarithms, as is right for a strength or a
            learning rate.
        step: the distance of values from each other, counted from the lowest.

    >>> between(1e-3, 1.0, log=True).whole
    False
    """
    check_number(low, 'low', 'between', above=0.0 if log is True else float('-inf'))
    check_number(high, 'high', 'between', above=low)
    if not isinstance(log, bool):
        refuse(log, 'log', 'between', 'True or False')
    if step is not None:
        check_number(step, 'step', 'between', above=0, most=high - low)
    if step is not None and log:
        refuse(step, 'step', 'between', 'none with log=True')
    whole = isinstance(low, int) and isinstance(high, int)
    if step is not None and whole and not isinstance(step, int):
        refuse(step, 'step', 'between', 'a whole number, because both ends are')
    return Between(low, high, log, step)


@dataclass(frozen=True)
class Search:
    """A search by Optuna.

    Attributes:
        spaces: key of the config -> the values that may be proposed.
        trials: the number of trials for each budget.
        sampler: a name of :data:`SAMPLERS`.
        seed: the seed of the sampler.
    """

    spaces: Mapping[str, Sweep | Between]
    trials: int
    sampler: str = 'tpe'
    seed: int = 0

    @property
    def text(self) -> str:
        """What proposes the values, for study.json."""
        return f'{self.sampler}, seed {self.seed}'


def search_of(
    spaces: Mapping[str, Sweep | Between], trials: Any, sampler: Any, seed: Any
) -> Search:
    """Return a search, or raise ConfigError if an argument does not fit or Optuna is absent."""
    check_count(trials, 'trials', 'tune')
    check_name(sampler, 'sampler', 'tune', SAMPLERS)
    check_count(seed, 'seed', 'tune', least=0)
    if importlib.util.find_spec('optuna') is None:
        raise ConfigError('tune(..., trials=N) needs Optuna: pip install "easypruner[optuna]"')
    return Search(spaces, trials, sampler, seed)


def examples_of(space: Sweep | Between) -> tuple[Any, ...]:
    """Return all values of a sweep, or the lowest and the highest of a range.

    >>> examples_of(between(1, 8, step=3))
    (1, 7)
    """
    if isinstance(space, Sweep):
        return space.values
    if space.step is None:
        return space.low, space.high
    steps = math.floor((space.high - space.low) / space.step * (1 + 1e-9))
    return tuple(dict.fromkeys((space.low, space.low + steps * space.step)))


class Proposals:
    """The values of the trials of one search, each proposed from the results of those before.

    The same results give the same proposals, so a search that was killed is repeated from its
    beginning with the results that it has.

    Args:
        search: the search.
    """

    def __init__(self, search: Search) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.search = search
        # Every trial trains to its end, as the runs do: no pruner of trials.
        self._study = optuna.create_study(
            direction='maximize', sampler=_sampler(search), pruner=optuna.pruners.NopPruner()
        )
        self._spaces = {key: _distribution(space) for key, space in search.spaces.items()}
        self._trial: Any = None

    def ask(self) -> dict[str, Any] | None:
        """Return key -> value of the next trial; None after the last one."""
        if len(self._study.trials) >= self.search.trials:
            return None
        self._trial = self._study.ask(self._spaces)
        return {
            key: _value(space, self._trial.params[key]) for key, space in self.search.spaces.items()
        }

    def tell(self, accuracy: float) -> None:
        """Take the result of the trial that was asked for last."""
        self._study.tell(self._trial, accuracy)


def _sampler(search: Search) -> Any:
    from optuna import samplers

    if search.sampler == 'random':
        return samplers.RandomSampler(seed=search.seed)
    # Both start with random values; a third of few trials, and ten of many.
    start = max(1, min(10, search.trials // 3))
    if search.sampler == 'gp':
        return samplers.GPSampler(seed=search.seed, n_startup_trials=start)
    return samplers.TPESampler(seed=search.seed, n_startup_trials=start)


def _distribution(space: Sweep | Between) -> Any:
    from optuna import distributions

    if isinstance(space, Sweep):
        # Their places, because Optuna knows only numbers and texts.
        return distributions.CategoricalDistribution(range(len(space.values)))
    kind: Any = distributions.IntDistribution if space.whole else distributions.FloatDistribution
    step = space.step or (1 if space.whole else None)
    return kind(space.low, space.high, log=space.log, step=step)


def _value(space: Sweep | Between, proposed: Any) -> Any:
    if isinstance(space, Sweep):
        return space.values[proposed]
    if space.whole:
        return proposed
    # Values are parts of names.
    return min(max(float(f'{proposed:.{_DIGITS}g}'), space.low), space.high)
