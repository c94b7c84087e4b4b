"""Limits: how much of a group may go, and which widths it may be left with."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from easypruner.base.checks import check_count, check_share
from easypruner.errors import ConfigError, nearest


@dataclass(frozen=True)
class Limits:
    """What a choice of masks leaves of a group. A group that loses nothing is always allowed.

    Attributes:
        min_units: units that stay at the least.
        max_removed: the largest share of units that goes, in 0..1.
        round_to: the number of units that stay is a multiple of this, never under what the other
            two ask for: the nearest, unless a budget has to keep more or may keep less.

    Raises:
        ConfigError: a value out of its range.

    >>> Limits(round_to=8).widths(20)
    (8, 16, 20)
    >>> Limits(max_removed=0.3).widths(10)
    (7, 8, 9, 10)
    """

    min_units: int = 1
    max_removed: float = 1.0
    round_to: int = 1

    def __post_init__(self) -> None:
        check_count(self.min_units, 'min_units', 'Limits')
        check_count(self.round_to, 'round_to', 'Limits')
        check_share(self.max_removed, 'max_removed', 'Limits')

    @classmethod
    def of(cls, values: Limits | dict[str, Any]) -> Limits:
        """Return limits given as such, or as a dict of their attributes.

        Raises:
            ConfigError: an attribute that there is not, or a value out of its range.
        """
        if isinstance(values, Limits):
            return values
        known = [field.name for field in fields(cls)]
        for name in values:
            if name not in known:
                raise ConfigError(f'{name!r} is no limit of a group; {nearest(name, known)}')
        return cls(**values)

    def in_units(self, size: int) -> Limits:
        """Return what these limits say of a group of ``size``, and go on to say once it is cut.

        >>> Limits(max_removed=0.25).in_units(16)
        Limits(min_units=12, max_removed=1.0, round_to=1)
        """
        return replace(self, min_units=self._least(size), max_removed=1.0)

    def _least(self, size: int) -> int:
        """Return how many units of a group stay at the least, to be rounded up."""
        # The share is rounded first: 10 x (1 - 0.3) is a little more than 7 in floating point.
        share = math.ceil(round(size * (1 - self.max_removed), 9))
        return min(max(self.min_units, share, 1), size)

    def widths(self, size: int) -> tuple[int, ...]:
        """Return the numbers of units that a group of ``size`` may be left with, ascending."""
        first = -(-self._least(size) // self.round_to) * self.round_to
        widths = tuple(range(first, size + 1, self.round_to))
        return widths if widths and widths[-1] == size else (*widths, size)

    def nearest_widths(self, size: int) -> Tensor:
        """Return for 0 to ``size`` units the nearest allowed number, the larger of two as near."""
        widths = torch.tensor(self.widths(size))
        counts = torch.arange(size + 1)
        above = torch.searchsorted(widths, counts).clamp(max=len(widths) - 1)
        upper, lower = widths[above], widths[(above - 1).clamp(min=0)]
        return torch.where((counts - lower).abs() < (upper - counts).abs(), lower, upper)
