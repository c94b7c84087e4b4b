"""Swept keys of a study: which values a key of the config takes."""

from __future__ import annotations

import itertools
import math
import os
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from easypruner.base.checks import check_count
from easypruner.base.describe import shown
from easypruner.errors import ConfigError


@dataclass(frozen=True)
class Sweep:
    """The values that a key takes, one after the other.

    Attributes:
        values: the values.
    """

    values: tuple[Any, ...]


def grid(*values: Any) -> Sweep:
    """Return a sweep over all values, in all combinations with other sweeps.

    >>> grid(1, 2).values
    (1, 2)
    """
    return Sweep(_distinct(values, 'grid'))


def choice(*values: Any, number: int, seed: int = 0) -> Sweep:
    """Return a sweep over some of the values, which are drawn at random.

    Args:
        *values: the values.
        number: how many of them are drawn.
        seed: the seed of the draw.

    >>> len(choice(1, 2, 3, 4, number=2).values)
    2
    """
    known = _distinct(values, 'choice')
    check_count(number, 'number', 'choice')
    check_count(seed, 'seed', 'choice', least=0)
    if number > len(known):
        raise ConfigError(
            f'choice has {len(known)} values and number={number}; expected at most {len(known)}'
        )
    drawn = set(random.Random(seed).sample(range(len(known)), number))
    return Sweep(tuple(value for place, value in enumerate(known) if place in drawn))


def combinations(sweeps: Mapping[str, Sweep]) -> Iterator[dict[str, Any]]:
    """Yield key -> value for each combination of the values of sweeps.

    >>> list(combinations({'a': grid(1, 2), 'b': grid(3)}))
    [{'a': 1, 'b': 3}, {'a': 2, 'b': 3}]
    """
    for values in itertools.product(*(sweep.values for sweep in sweeps.values())):
        yield dict(zip(sweeps, values, strict=True))


def read_sweeps(given: Any, where: str) -> dict[str, Sweep]:
    """Return the sweeps of a study file; a list counts as a grid.

    Args:
        given: key of the config -> values.
        where: the name of the dict, for messages.
    """
    if not isinstance(given, Mapping) or not all(isinstance(key, str) for key in given):
        raise ConfigError(f'{where} is {shown(given)}; expected a dict of key -> grid(...)')
    return {key: read_sweep(value, f'{where}[{key!r}]') for key, value in given.items()}


def read_sweep(value: Any, where: str) -> Sweep:
    """Return a sweep; a list counts as a grid."""
    if isinstance(value, Sweep):
        return value
    if isinstance(value, list | tuple | range) or _is_array(value):
        return Sweep(_distinct(list(value), where))
    raise ConfigError(f'{where} is {shown(value)}; expected grid(...), choice(...) or a list')


def plain_value(value: Any, where: str) -> Any:
    """Return a value of a config as JSON can represent it: numbers of numpy become Python's.

    Args:
        value: the value.
        where: what has the value, for messages.

    Raises:
        ConfigError: JSON cannot represent it, so a run in another process could not have it.
    """
    if hasattr(value, 'tolist'):
        # An array or a number of numpy or torch.
        value = value.tolist()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: plain_value(item, where) for key, item in value.items()}
    if isinstance(value, list | tuple | range):
        return [plain_value(item, where) for item in value]
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    raise ConfigError(
        f'{where} has the value {shown(value)}; expected a finite number, a string, True, False, '
        'None, or a list or dict of these'
    )


def value_text(value: Any) -> str:
    """Return a value for the name of a run.

    >>> value_text({'type': 'L1Norm', 'budget': {'type': 'Macs', 'keep': 0.5}})
    'L1Norm(budget=Macs(keep=0.5))'
    """
    if isinstance(value, Mapping):
        inner = ', '.join(f'{key}={value_text(v)}' for key, v in value.items() if key != 'type')
        return f'{value.get("type", "")}({inner})' if inner else str(value.get('type', '{}'))
    if isinstance(value, list):
        return f'[{", ".join(map(value_text, value))}]'
    return str(value)


def _distinct(values: Sequence[Any], function: str) -> tuple[Any, ...]:
    if len(values) == 1 and (isinstance(values[0], list | tuple | range) or _is_array(values[0])):
        values = tuple(values[0])
    values = [plain_value(value, function) for value in values]
    if not values:
        raise ConfigError(f'{function} has no values; expected at least one')
    if any(value in values[:place] for place, value in enumerate(values)):
        raise ConfigError(f'{function} has a value twice: {", ".join(map(repr, values))}')
    return tuple(values)


def _is_array(value: Any) -> bool:
    return hasattr(value, 'tolist') and bool(getattr(value, 'shape', ()))
