"""Ranking: which units are ranked together, and in which order they go, within limits."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from easypruner.errors import BudgetError
from easypruner.graph import ChannelGraph, ChannelGroup, Limits, Masks
from easypruner.graph.limits import families_of
from easypruner.strategies.budgets.uniform import pooled


def _structure(graph: ChannelGraph, group: ChannelGroup) -> str:
    """Return the parts of a group; groups with the same parts are isomorphic.

    Isomorphic Pruning (Fang et al., 2024, arXiv 2407.04616) ranks only such groups together.
    """
    parts = Counter((m.operand, m.dim, m.role, graph.parameter(m.param).dim())
                    for m in group.members)  # fmt: skip
    return repr(sorted(parts.items()))


def _extent(graph: ChannelGraph, group: ChannelGroup) -> str:
    """Return the height and width of the maps in which a group's channels are produced."""
    return repr(next((graph.extents.get(m.param) for m in group.producers), None))


SCOPES: dict[str, Callable[[ChannelGraph, ChannelGroup], str]] = {
    'global': lambda graph, group: '',
    'layer': lambda graph, group: group.name,
    'stage': _extent,
    'isomorphic': _structure,
}
"""Name -> the property that groups have in common if they are ranked together.

``global``: all groups are ranked together. ``layer``: each group is ranked by itself. ``stage``:
groups with maps of the same height and width. ``isomorphic``: groups with the same parts.
"""


def scopes_of(graph: ChannelGraph, scope: str) -> list[list[str]]:
    """Return lists of group names; the groups of one list are ranked together.

    Args:
        graph: the channel graph of the model.
        scope: a name of :data:`SCOPES`.
    """
    together: dict[str, list[str]] = {}
    for name, group in graph.groups.items():
        together.setdefault(SCOPES[scope](graph, group), []).append(name)
    return list(together.values())


NO_LIMITS = Limits()


def format_limit(value: float) -> str:
    """Format a limit for a message: large ones as whole numbers, small ones with four digits.

    >>> format_limit(20_400_000), format_limit(0.00123)
    ('20,400,000', '0.00123')
    """
    return f'{value:,.0f}' if value >= 100 else f'{value:.4g}'


def keep_best(score: Tensor, count: int, limits: Limits = NO_LIMITS) -> Tensor:
    """Return a mask that keeps the best units of a group, as many as its limits allow.

    Args:
        score: ``(units,)``, higher = keep.
        count: the number of units to keep.
        limits: the limits of the group.
    """
    size = score.numel()
    kept = max(count, 1) if limits is NO_LIMITS else int(limits.nearest_widths(size)[count])
    values = score.detach().cpu()
    if values.dtype not in (torch.float32, torch.float64):
        values = values.double()
    # NumPy takes a third of the time of torch for a few hundred units.
    mask = np.ones(size, dtype=np.bool_)
    mask[values.numpy().argsort(kind='stable')[: size - kept]] = False
    return torch.from_numpy(mask)


def within_limits(
    masks: Mapping[str, Tensor], scores: Mapping[str, Tensor], limits: Mapping[str, Limits]
) -> Masks:
    """Return masks that keep more units where the limits of a group require it.

    The kept units stay. The best of the others are added until the group has an allowed width.

    Args:
        masks: group -> bool tensor ``(units,)``, True = keep.
        scores: group -> ``(units,)``, higher = keep.
        limits: group -> its limits; any other group keeps at least one unit.
    """
    safe = {}
    for name, mask in masks.items():
        widths = limits.get(name, NO_LIMITS).widths(mask.numel())
        width = widths[bisect_left(widths, int(mask.sum()))]
        # The kept units rank above all others.
        ranks = scores[name].argsort(stable=True).argsort() + mask.numel() * mask
        safe[name] = keep_best(ranks, width)
    return Masks(safe)


def partial_masks(
    masks: Mapping[str, Tensor],
    scores: Mapping[str, Tensor],
    limits: Mapping[str, Limits],
    part: float,
) -> Masks:
    """Return masks that remove a part of the units that ``masks`` remove, the lowest first.

    Args:
        masks: group -> bool tensor ``(units,)``, True = keep.
        scores: group -> ``(units,)``, higher = keep.
        limits: group -> its limits; any other group keeps at least one unit.
        part: the part of each group's removed units, from 0 to 1.
    """
    kept = {name: mask.numel() - round(part * int((~mask).sum())) for name, mask in masks.items()}
    return Masks(
        {name: keep_best(scores[name], n, limits.get(name, NO_LIMITS)) for name, n in kept.items()}
    )


@dataclass(frozen=True)
class Ranking:
    """All units of all scored groups, in the order in which they are removed.

    Positions number the units of all groups in one row, group after group.

    Attributes:
        names: the names of the groups, in order.
        sizes: the number of units of each group.
        order: the positions of the units, the lowest score first. Units that the limits of their
            group always keep are left out.
        group: for each position, the number of its group.
        rank: for each position, the number of units of its group with a higher score.
        widths: for each group and each number of units from 0 to all, the nearest allowed width.
        family: for each group, the numbers of the groups that keep the same number of units.
    """

    names: tuple[str, ...]
    sizes: tuple[int, ...]
    order: Tensor
    group: Tensor
    rank: Tensor
    widths: tuple[Tensor, ...]
    family: tuple[list[int], ...]

    @classmethod
    def of(
        cls, scores: Mapping[str, Tensor], limits: Mapping[str, Limits] | None = None
    ) -> Ranking:
        """Rank units by their scores. Equal scores are removed evenly from all groups.

        Args:
            scores: group -> ``(units,)``, higher = keep.
            limits: group -> its limits, as in ``graph.limits``; any other group keeps at least one
                unit.
        """
        names = tuple(scores)
        sizes = tuple(scores[name].numel() for name in names)
        families = families_of(limits or {}, dict(zip(names, sizes, strict=True)))
        scores = pooled(scores, families)
        number = {name: i for i, name in enumerate(names)}
        together = {name: [number[n] for n in family] for family in families for name in family}
        none = torch.empty(0, dtype=torch.int64)
        if not names:
            return cls(names, sizes, none, none, none, (), ())
        row = torch.cat([scores[name].double() for name in names])
        group = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
        evenly = torch.argsort(
            torch.cat([torch.arange(size) / size for size in sizes]), stable=True
        )
        order = evenly[torch.argsort(row[evenly], stable=True)]
        by_group = order[torch.argsort(group[order], stable=True)]
        rank = torch.empty_like(by_group)
        rank[by_group] = torch.cat([torch.arange(size - 1, -1, -1) for size in sizes])
        bounds = [(limits or {}).get(name, NO_LIMITS) for name in names]
        widths = tuple(b.nearest_widths(size) for b, size in zip(bounds, sizes, strict=True))
        least = torch.stack([table[0] for table in widths])
        removable = rank[order] >= least[group[order]]
        family = tuple(together.get(name, [number[name]]) for name in names)
        return cls(names, sizes, order[removable], group, rank, widths, family)

    def removing(self, count: int) -> Masks:
        """Return masks that remove the ``count`` lowest units, as far as the limits allow."""
        return self._masks(self._kept(count))

    def _kept(self, count: int) -> Tensor:
        """Return the number of units that each group keeps when the ``count`` lowest go."""
        gone = torch.bincount(self.group[self.order[:count]], minlength=len(self.names))
        kept = (torch.tensor(self.sizes) - gone).tolist()
        kept = [max(kept[other] for other in family) for family in self.family]
        return torch.tensor([int(t[k]) for t, k in zip(self.widths, kept, strict=True)])

    def keeping(self, units: int, or_more: bool = False) -> Masks:
        """Return masks that keep a number of units, or the nearest number that limits allow.

        Args:
            units: the number of units to keep, of all groups together.
            or_more: whether more units may stay if that is nearer. Otherwise as many stay as fit;
                more stay only if the limits of the groups require it.
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

    def within(self, cost: Callable[[Masks], float], limit: float, unit: str) -> Masks:
        """Return masks that remove the lowest units until a cost is not above a limit.

        Units that still fit are then restored, until no group could keep one step more.

        Args:
            cost: the cost of masks; it must not grow when more units are removed.
            limit: the limit, in the unit of ``cost``.
            unit: the unit of the limit for the error, such as ``'MACs'``.

        Raises:
            BudgetError: the cost is above the limit even when all units are removed that the
                limits of the groups allow.
        """
        self.check_attainable(cost, limit, unit)

        def fits(kept: Tensor) -> bool:
            return cost(self._masks(kept)) <= limit

        return self._masks(self._filled(self._fewest(fits), fits))

    def check_attainable(self, cost: Callable[[Masks], float], limit: float, unit: str) -> None:
        """Raise BudgetError if a cost is above a limit even when all removable units are removed.

        Args:
            cost: the cost of masks.
            limit: the limit, in the unit of ``cost``.
            unit: the unit of the limit for the error, such as ``'MACs'``.
        """
        least = cost(self.removing(len(self.order)))
        if least > limit:
            raise BudgetError(
                f'the limit is {format_limit(limit)} {unit}, but {format_limit(least)} is the '
                f'lowest possible: each of the {len(self.names)} groups keeps its best unit, or '
                f'the units that its limits require, and frozen channels stay; {self._advice()}'
            )

    def _advice(self) -> str:
        """Return what can be done if no masks are below a limit."""
        pairs = zip(self.widths, self.sizes, strict=True)
        if any(len(torch.unique(table)) < size for table, size in pairs):
            return 'raise the limit; a smaller round_to, or no target, allows more widths'
        return 'raise the limit'

    def _fewest(self, fits: Callable[[Tensor], bool]) -> int:
        """Return the smallest number of lowest units to remove until the kept ones fit."""
        counts = range(len(self.order))
        return bisect_left(counts, True, key=lambda count: fits(self._kept(count)))

    def _filled(self, count: int, fits: Callable[[Tensor], bool]) -> Tensor:
        """Remove the ``count`` lowest units, then restore those that still fit, the best first.

        The last unit that is removed may be a costly one, which leaves room for many others.
        """
        kept = self._kept(count)
        steps = [torch.unique(table) for table in self.widths]
        gone = self.order[:count].flip(0)
        numbers, ranks = self.group[gone].tolist(), self.rank[gone].tolist()
        full, groups = set(), len(set(numbers))
        for number, rank in zip(numbers, ranks, strict=True):
            # All units of a group cost the same: if one does not fit, no other one does.
            if number in full or rank < int(kept[number]):
                continue
            before = int(kept[number])
            above = steps[number][steps[number] > before]
            if len(above):
                kept[self.family[number]] = above[0]
                if fits(kept):
                    continue
            kept[self.family[number]] = before
            full.update(self.family[number])
            if len(full) == groups:
                break
        return kept

    def _masks(self, kept: Tensor) -> Masks:
        if not self.names:
            return Masks()
        keep = self.rank < kept[self.group]
        parts = torch.split(keep, list(self.sizes))
        return Masks(dict(zip(self.names, parts, strict=True)))
