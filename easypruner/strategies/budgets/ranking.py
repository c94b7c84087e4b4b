"""Ranking: which units go first, within the limits of their groups."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from easypruner.errors import BudgetError
from easypruner.graph.limits import Limits
from easypruner.graph.masks import Masks

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
    """Return ``masks`` with each group left with a width it may have, the next one up.

    What they keep stays, and where that is not enough the best of the others with it.

    Args:
        masks: group -> bool tensor ``(units,)``, True = keep.
        scores: group -> ``(units,)``, higher = keep.
        limits: group -> its limits; a group that is not named keeps one unit at the least.
    """
    safe = {}
    for name, mask in masks.items():
        widths = limits.get(name, NO_LIMITS).widths(mask.numel())
        width = widths[bisect_left(widths, int(mask.sum()))]
        safe[name] = _widened(mask, scores[name], width)
    return Masks(safe)


def _widened(mask: Tensor, score: Tensor, width: int) -> Tensor:
    """Return the mask that keeps ``width`` units: those of ``mask``, and the best besides."""
    order = score.argsort(stable=True)
    order = order[mask[order].int().argsort(stable=True)]
    wider = torch.ones_like(mask)
    wider[order[: mask.numel() - width]] = False
    return wider


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

    def keeping(self, units: int, or_more: bool = False) -> Masks:
        """Return masks that keep a number of units, or as near to it as the limits allow.

        Args:
            units: how many are to stay, of all groups together.
            or_more: whether more of them may stay where that is nearer. Otherwise it is fewer, but
                no single step more would fit; more only where the limits let no more go.
        """
        count = min(max(sum(self.sizes) - units, 0), len(self.order))
        kept = self._kept(count)
        if int(kept.sum()) == units:
            return self._masks(kept)

        def fits(kept: Tensor) -> bool:
            return int(kept.sum()) <= units

        count = self._fewest(fits)
        kept = self._filled(count, fits)
        if or_more and count:
            wider = self._kept(count - 1)
            if int(wider.sum()) - units <= units - int(kept.sum()):
                kept = wider
        return self._masks(kept)

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
        self.check_reach(cost, limit, what)

        def fits(kept: Tensor) -> bool:
            return cost(self._masks(kept)) <= limit

        return self._masks(self._filled(self._fewest(fits), fits))

    def check_reach(self, cost: Callable[[Masks], float], limit: float, what: str) -> None:
        """Raise BudgetError unless ``cost`` is at or under ``limit`` with all gone that may go.

        Args:
            cost: of masks.
            limit: in the unit of ``cost``.
            what: the limit's name for the error, e.g. ``'MACs'``.
        """
        least = cost(self.removing(len(self.order)))
        if least > limit:
            raise BudgetError(
                f'at most {shown(limit)} {what} were asked for, but {shown(least)} is the least '
                f'that can be had: each of the {len(self.names)} groups keeps its best unit, or '
                'what its limits say, and what is frozen stays whole; raise the limit'
            )

    def _fewest(self, fits: Callable[[Tensor], bool]) -> int:
        """Return how many of the lowest units must go at the least until what is kept fits."""
        low, high = 0, len(self.order)
        while low < high:
            middle = (low + high) // 2
            if fits(self._kept(middle)):
                high = middle
            else:
                low = middle + 1
        return low

    def _filled(self, count: int, fits: Callable[[Tensor], bool]) -> Tensor:
        """Remove the ``count`` lowest units, then give back what still fits, the best first.

        The last unit to go may be a costly one, and leave room for many others.
        """
        kept = self._kept(count)
        steps = [torch.unique(table) for table in self.widths]
        gone = self.order[:count].flip(0)
        numbers, places = self.group[gone].tolist(), self.place[gone].tolist()
        full, groups = set(), len(set(numbers))
        for number, place in zip(numbers, places, strict=True):
            # All units of a group cost the same: where one does not fit, none does.
            if number in full or place < int(kept[number]):
                continue
            before = int(kept[number])
            above = steps[number][steps[number] > before]
            if len(above):
                kept[number] = above[0]
                if fits(kept):
                    continue
            kept[number] = before
            full.add(number)
            if len(full) == groups:
                break
        return kept

    def _masks(self, kept: Tensor) -> Masks:
        if not self.names:
            return Masks()
        keep = self.place < kept[self.group]
        parts = torch.split(keep, list(self.sizes))
        return Masks(dict(zip(self.names, parts, strict=True)))
