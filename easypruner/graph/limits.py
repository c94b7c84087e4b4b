"""Limits: how many units of a group may go, and how many may stay."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from easypruner.base.checks import check_count, check_share
from easypruner.errors import ConfigError, nearest

AUTO = 'auto'
"""As ``round_to``: the grid of widths that is fast where the network will run."""


@dataclass(frozen=True)
class Limits:
    """How many units of a group may stay after a cut. All of them may always stay.

    Attributes:
        min_units: the smallest number of units that stay.
        max_removed: the largest share of units that goes, in 0..1.
        round_to: the number of units that stay is a multiple of this: the nearest that the other
            two allow, unless a budget must keep more or may keep less. ``'auto'`` is a number for
            each group with which its layers are fast in the target of :func:`easypruner.trace`.
            None is ``'auto'`` if there is a target, and 1 if there is none.
        uniform: whether the groups of a kind, such as the MLPs of all layers, keep the same number
            of units; or a name: groups with the same name keep the same number. Budgets then rank
            units within their group, and the lowest of each group of the kind go together.

    Raises:
        ConfigError: a value is out of its range.

    >>> Limits(round_to=8).widths(20)
    (8, 16, 20)
    >>> Limits(max_removed=0.3).widths(10)
    (7, 8, 9, 10)
    """

    min_units: int = 1
    max_removed: float = 1.0
    round_to: int | str | None = None
    uniform: bool | str = False

    def __post_init__(self) -> None:
        check_count(self.min_units, 'min_units', 'Limits')
        if isinstance(self.round_to, str) and self.round_to != AUTO:
            raise ConfigError(
                f"round_to={self.round_to!r} of Limits; expected a whole number, or 'auto'"
            )
        if self.round_to not in (None, AUTO):
            check_count(self.round_to, 'round_to', 'Limits')
        check_share(self.max_removed, 'max_removed', 'Limits')
        if not isinstance(self.uniform, bool | str) or self.uniform == '':
            raise ConfigError(
                f'uniform={self.uniform!r} of Limits; expected True, False, or a name that groups '
                'have in common'
            )

    @classmethod
    def of(cls, values: Limits | Mapping[str, Any]) -> Limits:
        """Return limits that are given as such, or as a dict of their attributes.

        Raises:
            ConfigError: there is no such attribute, or a value is out of its range.
        """
        if isinstance(values, Limits):
            return values
        known = [field.name for field in fields(cls)]
        for name in values:
            if name not in known:
                raise ConfigError(f'{name!r} is not a limit of a group; {nearest(name, known)}')
        return cls(**values)

    def in_units(self, size: int) -> Limits:
        """Return these limits without a share, which would change its meaning after a cut.

        Args:
            size: the number of units of the group.

        >>> Limits(max_removed=0.25).in_units(16)
        Limits(min_units=12, max_removed=1.0, round_to=None, uniform=False)
        """
        return replace(self, min_units=self._least(size), max_removed=1.0)

    @property
    def step(self) -> int:
        """The number of which the units that stay are a multiple.

        Raises:
            ConfigError: it is ``'auto'``, and no network was traced.
        """
        if isinstance(self.round_to, str):
            raise ConfigError("round_to='auto' of Limits is a number only after easypruner.trace")
        return self.round_to or 1

    def _least(self, size: int) -> int:
        """Return how many units of a group must stay, before ``round_to`` is applied."""
        # The product is rounded first: 10 x (1 - 0.3) is a little more than 7 in floating point.
        share = math.ceil(round(size * (1 - self.max_removed), 9))
        return min(max(self.min_units, share, 1), size)

    def widths(self, size: int) -> tuple[int, ...]:
        """Return how many units of a group of ``size`` may stay, ascending."""
        step = self.step
        first = -(-self._least(size) // step) * step
        widths = tuple(range(first, size + 1, step))
        return widths if widths and widths[-1] == size else (*widths, size)

    def nearest_widths(self, size: int) -> Tensor:
        """Return the nearest allowed number of units for each number from 0 to ``size``.

        If two are equally near, it is the larger one.
        """
        widths = torch.tensor(self.widths(size))
        counts = torch.arange(size + 1)
        above = torch.searchsorted(widths, counts).clamp(max=len(widths) - 1)
        upper, lower = widths[above], widths[(above - 1).clamp(min=0)]
        return torch.where((counts - lower).abs() < (upper - counts).abs(), lower, upper)


def with_grids(
    limits: Mapping[str, Limits],
    groups: Iterable[str],
    grids: Callable[[], Mapping[str, int]] | None,
    *,
    implied: bool,
) -> dict[str, Limits]:
    """Return group -> its limits, with a number where ``round_to`` depends on a grid of widths.

    Args:
        limits: group -> its limits.
        groups: the names of all groups.
        grids: returns group -> its grid in units; None if nothing knows the grids.
        implied: whether groups without a ``round_to`` of their own keep to the grids as well.

    Raises:
        ConfigError: a group has ``round_to='auto'``, but nothing knows the grids.
    """
    automatic = [name for name, own in limits.items() if own.round_to == AUTO]
    if grids is None and automatic:
        raise ConfigError(
            f"round_to='auto' of {automatic[0]!r} needs a target, such as target='OnnxRuntime'"
        )
    if grids is None or not (automatic or implied):
        return dict(limits)
    found, follows = grids(), (None, AUTO) if implied else (AUTO,)
    return {
        name: replace(own, round_to=found[name]) if own.round_to in follows else own
        for name in (groups if implied else limits)
        for own in [limits.get(name, Limits())]
    }


def with_families(
    limits: Mapping[str, Limits], kinds: Mapping[str, str], sizes: Mapping[str, int]
) -> dict[str, Limits]:
    """Return limits that are the same in each family: groups that keep the same number of units.

    Their ``uniform`` is the name of the family.

    Args:
        limits: group -> its limits.
        kinds: group -> its kind, for groups with ``uniform=True``.
        sizes: group -> its number of units.

    Raises:
        ConfigError: groups of one name have different numbers of units.
    """
    families: dict[str, list[str]] = {}
    for name, own in limits.items():
        if own.uniform:
            families.setdefault(own.uniform if own.uniform is not True else kinds[name], []).append(
                name
            )
    found = dict(limits)
    for family, names in families.items():
        first = names[0]
        for name in names:
            if sizes[name] != sizes[first]:
                raise ConfigError(
                    f'uniform={family!r} of limits: {first!r} has {sizes[first]} units, and '
                    f'{name!r} has {sizes[name]}; give names to groups of the same size'
                )
        common = _tightest([limits[name] for name in names], sizes[first])
        found |= dict.fromkeys(names, replace(common, uniform=family))
    return found


def _tightest(limits: Sequence[Limits], size: int) -> Limits:
    """Return limits that meet several ones for groups of a size."""
    steps = {own.round_to for own in limits if own.round_to is not None}
    return Limits(
        min_units=max(own._least(size) for own in limits),
        round_to=math.lcm(*(own.step for own in limits)) if steps else None,
    )


def families_of(limits: Mapping[str, Limits], sizes: Mapping[str, int]) -> list[list[str]]:
    """Return the names of groups that keep the same number of units, for each family of several.

    Args:
        limits: group -> its limits, as in ``graph.limits``.
        sizes: the groups in question -> their numbers of units.
    """
    found: dict[tuple[str, int], list[str]] = {}
    for name, size in sizes.items():
        uniform = limits[name].uniform if name in limits else False
        if isinstance(uniform, str):
            found.setdefault((uniform, size), []).append(name)
    return [names for names in found.values() if len(names) > 1]
