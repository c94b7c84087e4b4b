"""Ranking: which units go first, with the best of each group always kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from easypruner.errors import BudgetError
from easypruner.masks import Masks


def keep_best(masks: Mapping[str, Tensor], scores: Mapping[str, Tensor]) -> Masks:
    """Return ``masks`` with the best unit kept in each group that would lose them all."""
    safe = {}
    for name, mask in masks.items():
        if not bool(mask.any()):
            mask = mask.clone()
            mask[scores[name].argmax()] = True
        safe[name] = mask
    return Masks(safe)


@dataclass(frozen=True)
class Ranking:
    """All units of all scored groups, the lowest score first.

    Attributes:
        names: the groups, in order.
        sizes: the units of each.
        order: positions in the row of all units, in the order in which they go. The best unit of
            each group is not among them.
    """

    names: tuple[str, ...]
    sizes: tuple[int, ...]
    order: Tensor

    @classmethod
    def of(cls, scores: Mapping[str, Tensor]) -> Ranking:
        """Rank the units of ``scores``; equal scores go evenly from all groups.

        Args:
            scores: group -> ``(units,)``, higher = keep.
        """
        names = tuple(scores)
        sizes = tuple(scores[name].numel() for name in names)
        if not names:
            return cls(names, sizes, torch.empty(0, dtype=torch.int64))
        row = torch.cat([scores[name].double() for name in names])
        best = torch.zeros(row.numel(), dtype=torch.bool)
        start = 0
        for name, size in zip(names, sizes, strict=True):
            best[start + int(scores[name].argmax())] = True
            start += size
        place = torch.cat([torch.arange(size) / size for size in sizes])
        evenly = torch.argsort(place, stable=True)
        order = evenly[torch.argsort(row[evenly], stable=True)]
        return cls(names, sizes, order[~best[order]])

    def removing(self, count: int) -> Masks:
        """Return masks that remove the ``count`` lowest units."""
        return self._masks(self._kept(count))

    def _kept(self, count: int) -> Tensor:
        keep = torch.ones(sum(self.sizes), dtype=torch.bool)
        keep[self.order[:count]] = False
        return keep

    def within(self, cost: Callable[[Masks], float], limit: float, what: str) -> Masks:
        """Return masks that remove the lowest units until ``cost`` is at or under ``limit``.

        What then still fits is given back, so that no single unit more could stay.

        Args:
            cost: of masks; it must not grow when more is removed.
            limit: in the unit of ``cost``.
            what: the limit's name for the error, e.g. ``'MACs'``.

        Raises:
            BudgetError: not even removing all but one unit of each group gets there.
        """
        low, high = 0, len(self.order)
        least = cost(self.removing(high))
        if least > limit:
            raise BudgetError(
                f'at most {limit:,.0f} {what} were asked for, but {least:,.0f} is the least that '
                f'can be had: each of the {len(self.names)} groups keeps its best unit, and what '
                'is frozen stays whole; raise the limit'
            )
        while low < high:
            middle = (low + high) // 2
            if cost(self.removing(middle)) <= limit:
                high = middle
            else:
                low = middle + 1
        return self._filled(low, cost, limit)

    def _filled(self, count: int, cost: Callable[[Masks], float], limit: float) -> Masks:
        """Remove the ``count`` lowest units, then give back what still fits, the best first.

        The last unit to go may be a costly one, and leave room for many others.
        """
        keep = self._kept(count)
        starts = torch.tensor((0, *self.sizes)).cumsum(0)
        group = torch.searchsorted(starts, self.order[:count], right=True) - 1
        full: set[int] = set()
        for position, number in zip(
            reversed(self.order[:count].tolist()), reversed(group.tolist()), strict=True
        ):
            # All units of a group cost the same: where one does not fit, none does.
            if number in full:
                continue
            keep[position] = True
            if cost(self._masks(keep)) > limit:
                keep[position] = False
                full.add(number)
                if len(full) == len(self.names):
                    break
        return self._masks(keep)

    def _masks(self, keep: Tensor) -> Masks:
        parts = torch.split(keep, list(self.sizes))
        return Masks(dict(zip(self.names, parts, strict=True)))
