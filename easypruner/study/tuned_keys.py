"""tune(...) of a study file: keys whose values are chosen by trials."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from easypruner.base.describe import shown
from easypruner.errors import ConfigError
from easypruner.study.proposals import Between, Search, search_of
from easypruner.study.sweeps import Sweep, read_sweep

VALIDATION = 'validation split'


@dataclass(frozen=True)
class Tune:
    """Keys whose values are chosen by trials, of all combinations or of what Optuna proposes.

    Attributes:
        sweeps: key of the config -> the values, all combinations of which are tried.
        search: the search by Optuna instead.
    """

    sweeps: Mapping[str, Sweep]
    search: Search | None = None

    @property
    def keys(self) -> list[str]:
        """The keys of the config."""
        return list(self.search.spaces if self.search else self.sweeps)

    @property
    def trials(self) -> int:
        """The number of trials for each budget."""
        if self.search:
            return self.search.trials
        return math.prod(len(sweep.values) for sweep in self.sweeps.values())


def tune(
    key: Any,
    values: Any = None,
    on: str = VALIDATION,
    *,
    trials: int | None = None,
    sampler: str = 'tpe',
    seed: int = 0,
) -> Tune:
    """Return a key whose value is chosen by a trial of each value, or by a search.

    Args:
        key: the key of the config; or a dict of key -> values, for trials of all combinations.
        values: a list of values, or a sweep; with ``trials`` also a range, ``between(...)``.
        on: the data that the trials are compared on: a part of the training data.
        trials: the number of trials; Optuna proposes their values. None tries all values.
        sampler: the sampler of Optuna: ``'tpe'``, ``'random'`` or ``'gp'``.
        seed: the seed of the sampler.
    """
    several = isinstance(key, Mapping) and values is None
    given = key if several else {key: values} if isinstance(key, str) else None
    if not given or not all(isinstance(name, str) for name in given):
        raise ConfigError(
            f'the key of tune is {shown(key)}; expected a key of the config and its values, or a '
            'dict of key -> values'
        )
    if on != VALIDATION:
        raise ConfigError(
            f'on={on!r} of tune; expected {VALIDATION!r}, a part of the training data, because the '
            'final results are not for choosing'
        )
    if trials is None:
        for name, entry in given.items():
            if isinstance(entry, Between):
                raise ConfigError(
                    f'tune({name!r}) has the range between({entry.low:g}, {entry.high:g}); '
                    'expected a list of values, or trials=N, for which Optuna proposes N values'
                )
        return Tune({name: read_sweep(entry, f'tune({name!r})') for name, entry in given.items()})
    spaces = {
        name: entry if isinstance(entry, Between) else read_sweep(entry, f'tune({name!r})')
        for name, entry in given.items()
    }
    return Tune({}, search_of(spaces, trials, sampler, seed))
