"""Ranking: which units go first, within the limits of their groups."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from easypruner.errors import BudgetError
from easypruner.limits import Limits
from easypruner.masks import Masks

NO_LIMITS = Limits()


def shown(value: float) -> str:
    """Return a limit for a message: counts whole, small ones with four digits.

    >>> shown(20_400_000), shown(0.00123)
    ('20,400,000', '0.00123')
    """
    return f'{value:,.0f}' if value >= 100 else f'{value:.4g}'


def keep_best(score: Tensor, count: int, limits: Limits = NO_LIMITS) -> Tensor:
    """Return the mask that keeps the ``count`` best units of a group, to within its limits.

    Args:
        score: ``(units,)``, higher = keep.
        count: how many are to stay.
        limits: of the group.
    """
    size = score.numel()
    kept = max(count, 1) if limits is NO_LIMITS else int(limits.nearest_widths(size)[count])
    mask = torch.ones(size, dtype=torch.bool)
    mask[score.argsort(stable=True)[: size - kept]] = False
    return mask


def within_limits(
    masks: Mapping[str, Tensor], scores: Mapping[str, Tensor], limits: Mapping[str, Limits]
) -> Masks:
    """Return ``masks`` with the best units kept in each group left with a width it may not have.

    Args:
        masks: group -> bool tensor ``(units,)``, True = keep.
        scores: group -> ``(units,)``, higher = keep.
        limits: group -> its limits; a group that is not named keeps one unit at the least.
    """
    safe = {}
    for name, mask in masks.items():
        fitting = keep_best(scores[name], int(mask.sum()), limits.get(name, NO_LIMITS))
        safe[name] = mask if int(fitting.sum()) == int(mask.sum()) else fitting
    return Masks(safe)


def part_of(
    masks: Mapping[str, Tensor],
    scores: Mapping[str, Tensor],
    limits: Mapping[str, Limits],
    part: float,
) -> Masks:
    """Return masks that remove a part of what ``masks`` remove of each group, the lowest first.

    Args:
        masks: group -> bool tensor ``(units,)``, True = keep.
        scores: group -> ``(units,)``, higher = keep.
        limits: group -> its limits; a group that is not named keeps one unit at the least.
        part: of the units that go, in 0..1.
    """
    kept = {name: mask.numel() - round(part * int((~mask).sum())) for name, mask in masks.items()}
    return Masks(
        {name: keep_best(scores[name], n, limits.get(name, NO_LIMITS)) for name, n in kept.items()}
    )


@dataclass(frozen=True)
class Ranking:
    """All units of all scored groups, the lowest score first.

    Attributes:
        names: the groups, in order.
        sizes: the units of each.
        order: positions in the row of all units, in the order in which they go. Those that the
            limits of their group keep in any case are not among them.
        group: of each position, the number of its group.
        place: of each position, how many units of its group are better.
        widths: of each group, the nearest allowed number of units for 0 to all of them.
    """

    names: tuple[str, ...]
    sizes: tuple[int, ...]
    order: Tensor
    group: Tensor
    place: Tensor
    widths: tuple[Tensor, ...]

    @classmethod
    def of(
        cls, scores: Mapping[str, Tensor], limits: Mapping[str, Limits] | None = None
    ) -> Ranking:
        """Rank the units of ``scores``; equal scores go evenly from all groups.

        Args:
            scores: group -> ``(units,)``, higher = keep.
            limits: group -> its limits, as ``graph.limits``; a group that is not named keeps one
                unit at the least.
        """
        names = tuple(scores)
        sizes = tuple(scores[name].numel() for name in names)
        none = torch.empty(0, dtype=torch.int64)
        if not names:
            return cls(names, sizes, none, none, none, ())
        row = torch.cat([scores[name].double() for name in names])
        group = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
        evenly = torch.argsort(
            torch.cat([torch.arange(size) / size for size in sizes]), stable=True
        )
        order = evenly[torch.argsort(row[evenly], stable=True)]
        own = order[torch.argsort(group[order], stable=True)]
        place = torch.empty_like(own)
        place[own] = torch.cat([torch.arange(size - 1, -1, -1) for size in sizes])
        bounds = [(limits or {}).get(name, NO_LIMITS) for name in names]
        widths = tuple(b.nearest_widths(size) for b, size in zip(bounds, sizes, strict=True))
        least = torch.stack([table[0] for table in widths])
        free = place[order] >= least[group[order]]
        return cls(names, sizes, order[free], group, place, widths)

    def removing(self, count: int) -> Masks:
        """Return masks that remove the ``count`` lowest units, to within the limits."""
        return self._masks(self._kept(count))

    def _kept(self, count: int) -> Tensor:
        """Return how many units each group keeps when the ``count`` lowest go."""
        gone = torch.bincount(self.group[self.order[:count]], minlength=len(self.names))
        kept = (torch.tensor(self.sizes) - gone).tolist()
        return torch.tensor([int(t[k]) for t, k in zip(self.widths, kept, strict=True)])

    def within(self, cost: Callable[[Masks], float], limit: float, what: str) -> Masks:
        """Return masks that remove the lowest units until ``cost`` is at or under ``limit``.

        What then still fits is given back, so that no single step more could stay.

        Args:
            cost: of masks; it must not grow when more is removed.
            limit: in the unit of ``cost``.
            what: the limit's name for the error, e.g. ``'MACs'``.

        Raises:
            BudgetError: not even removing all that the groups' limits allow gets there.
        """
        low, high = 0, len(self.order)
        least = cost(self.removing(high))
        if least > limit:
            raise BudgetError(
                f'at most {shown(limit)} {what} were asked for, but {shown(least)} is the least '
                f'that can be had: each of the {len(self.names)} groups keeps its best unit, or '
                'what its limits say, and what is frozen stays whole; raise the limit'
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
        kept = self._kept(count)
        steps = [torch.unique(table) for table in self.widths]
        full: set[int] = set()
        for position in reversed(self.order[:count].tolist()):
            number = int(self.group[position])
            # All units of a group cost the same: where one does not fit, none does.
            if number in full or int(self.place[position]) < int(kept[number]):
                continue
            before = int(kept[number])
            above = steps[number][steps[number] > before]
            if len(above):
                kept[number] = above[0]
                if cost(self._masks(kept)) <= limit:
                    continue
            kept[number] = before
            full.add(number)
            if len(full) == len(self.names):
                break
        return self._masks(kept)

    def _masks(self, kept: Tensor) -> Masks:
        if not self.names:
            return Masks()
        keep = self.place < kept[self.group]
        parts = torch.split(keep, list(self.sizes))
        return Masks(dict(zip(self.names, parts, strict=True)))
