"""Ramps: how a regularizer's strength grows over a training stage."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from easypruner.errors import ConfigError, nearest

Ramp = Callable[[Any], Any]
"""Share of the stage that is done, in 0..1 -> factor of the strength, in 0..1; arrays too."""

_WARMUP = 0.1


def _warmup(part: float) -> Ramp:
    return lambda share: np.minimum(np.asarray(share) / part, 1.0)


RAMPS: dict[str, Ramp] = {
    'constant': lambda share: np.ones_like(share, dtype=float),
    'linear': lambda share: np.asarray(share, dtype=float),
    'cosine': lambda share: (1 - np.cos(np.pi * np.asarray(share))) / 2,
    'warmup': _warmup(_WARMUP),
}
"""Constant; growing from 0 to 1 linearly or along half a cosine; linearly over the first tenth."""


def ramp_of(schedule: str | Mapping[str, float], owner: str) -> Ramp:
    """Return the ramp that a ``strength_schedule`` names.

    Args:
        schedule: a name of :data:`RAMPS`, or ``dict(warmup=share of the stage)``.
        owner: whose argument it is, for the message.

    Raises:
        ConfigError: neither.

    >>> float(ramp_of('linear', 'GReg')(0.25)), float(ramp_of({'warmup': 0.5}, 'GReg')(0.25))
    (0.25, 0.5)
    """
    if isinstance(schedule, Mapping) and set(schedule) == {'warmup'}:
        part = schedule['warmup']
        if isinstance(part, int | float) and not isinstance(part, bool) and 0 < part <= 1:
            return _warmup(part)
    elif isinstance(schedule, str) and schedule in RAMPS:
        return RAMPS[schedule]
    hint = nearest(schedule, RAMPS) if isinstance(schedule, str) else f'names: {", ".join(RAMPS)}'
    raise ConfigError(
        f'strength_schedule={schedule!r} of {owner} is not understood; expected a name, or '
        f'dict(warmup=0.2) with a share above 0 and up to 1; {hint}'
    )
