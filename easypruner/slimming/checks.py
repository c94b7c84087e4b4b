"""Checks of the arguments of slim() that are functions or batches."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from easypruner.base.describe import describe
from easypruner.base.modules import evaluating
from easypruner.errors import ConfigError

Batches = Iterable[Any] | Callable[[], Iterable[Any]]
"""An iterable that can be read several times, or a function that opens a new pass."""


def check_function(value: Any, argument: str, owner: str) -> None:
    """Raise ConfigError unless a value is a function or None."""
    if isinstance(value, type):
        name = value.__name__
        raise ConfigError(f'{argument} of {owner} is the class {name}; build it, as in {name}()')
    if value is not None and not callable(value):
        raise ConfigError(f'{argument}={reprlib.repr(value)} of {owner}; expected a function')


def make_opener(batches: Any, owner: str) -> Callable[[], Iterable[Any]] | None:
    """Return a function that opens a pass over batches; None if there are no batches.

    Raises:
        ConfigError: the batches are of a wrong kind, or can be read only once.
    """
    if batches is None:
        return None
    got = f'batches of {owner} is {describe(batches)}'
    if isinstance(batches, Iterator):
        raise ConfigError(
            f'{got}, which can be read only once; give a data loader, a list, or a function that '
            'opens a new pass'
        )
    if isinstance(batches, Tensor | Mapping | str):
        raise ConfigError(f'{got}; give a single batch as a list with one element, [batch]')
    pair = isinstance(batches, tuple) and len(batches) == 2
    if pair and all(isinstance(value, Tensor) for value in batches):
        raise ConfigError(
            f'{got}, which may be one pair or two batches; give a list: [(inputs, targets)], or '
            '[inputs, inputs]'
        )
    if isinstance(batches, Iterable):
        return lambda: batches
    if not callable(batches) or isinstance(batches, nn.Module):
        raise ConfigError(
            f'batches={reprlib.repr(batches)} of {owner}; expected a data loader, a list of '
            'batches, or a function that opens a pass over them'
        )
    return lambda: _opened(batches(), owner)


def _opened(batches: Any, owner: str) -> Iterable[Any]:
    if not isinstance(batches, Iterable):
        raise ConfigError(
            f'the function batches of {owner} returns {describe(batches)}; expected an iterable of '
            'batches'
        )
    return batches


def make_accuracy(
    evaluate: Callable[[nn.Module], float] | None, owner: str
) -> Callable[[nn.Module], float] | None:
    """Return a function that calls ``evaluate`` in evaluation mode and then restores the mode.

    Raises:
        ConfigError: ``evaluate`` is not a function; or later, its result is not a number.
    """
    check_function(evaluate, 'evaluate', owner)
    if evaluate is None:
        return None

    def accuracy(model: nn.Module) -> float:
        with evaluating(model):
            value = evaluate(model)
        try:
            return float(value)
        except (TypeError, ValueError, RuntimeError):
            raise ConfigError(
                f'evaluate of {owner} returns {describe(value)}; expected a number, the accuracy '
                'in percent'
            ) from None

    return accuracy
