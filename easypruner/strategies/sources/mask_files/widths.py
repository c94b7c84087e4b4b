"""Widths: how many units of each group stay, from how many channels do, and which ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from easypruner.errors import MaskError
from easypruner.graph import ChannelGraph, Masks
from easypruner.strategies.measures import units
from easypruner.strategies.sources.mask_files.contents import How
from easypruner.strategies.sources.mask_files.units import Places, UnitsAt


@dataclass(frozen=True)
class Width:
    """How many channels of a dimension stay, as an entry of a file says.

    Attributes:
        label: what the entry is, such as ``"'conv1.weight' dimension 0"``.
        total: the number of channels that stay.
        per_unit: group -> the number of channels that each of its units has there.
        frozen: the number of channels of no group, which stay.
    """

    label: str
    total: int
    per_unit: Mapping[str, int]
    frozen: int

    @classmethod
    def of(cls, label: str, total: int, at: UnitsAt, chosen: Tensor | None = None) -> Width | None:
        """Return the width of a dimension, or of some of its indices.

        Args:
            label: what the entry is.
            total: the number of channels that stay.
            at: the units in the dimension.
            chosen: which indices are meant; None for all.

        Returns:
            the width; None if units of a group have different numbers of channels there, or only
            some have any, so that a number does not say how many units stay.
        """
        frozen = at.frozen()
        per_unit = {}
        for group, (index, unit) in at.parts.items():
            own = unit if chosen is None else unit[chosen[index]]
            counts = torch.bincount(own, minlength=1 + int(unit.max()))[unit]
            if bool((counts != counts[0]).any()):
                return None
            if counts[0]:
                per_unit[group] = int(counts[0])
        stays = frozen if chosen is None else frozen & chosen
        return cls(label, total, per_unit, int(stays.sum()))


def solve(widths: Sequence[Width], left: Mapping[str, int]) -> dict[str, int]:
    """Return group -> how many of its units stay, for all groups in some widths.

    A width of several groups, as behind a concatenation, is what others leave of it.

    Args:
        widths: the widths of a file.
        left: group -> how many units it has.

    Raises:
        MaskError: two widths contradict each other, or no number of units gives one of them.
    """
    kept: dict[str, int] = {}
    reason: dict[str, str] = {}
    pending = list(widths)
    while pending:
        waiting = []
        for width in pending:
            unknown = [group for group in width.per_unit if group not in kept]
            if len(unknown) > 1:
                waiting.append(width)
                continue
            rest = width.total - width.frozen
            rest -= sum(n * kept[group] for group, n in width.per_unit.items() if group in kept)
            for group in unknown:
                kept[group] = _units(width, group, rest, left[group])
                reason[group] = width.label
                rest = 0
            if rest:
                raise _contradiction(width, rest, reason)
        if len(waiting) == len(pending):
            groups = ', '.join(map(repr, waiting[0].per_unit))
            raise MaskError(
                f'{waiting[0].label} is {waiting[0].total}, but nothing says how many of these '
                f'channels come from each of the groups {groups}'
            )
        pending = waiting
    return kept


def _units(width: Width, group: str, channels: int, most: int) -> int:
    """Return how many units have some channels."""
    size = width.per_unit[group]
    count, more = divmod(channels, size)
    if more or not 1 <= count <= most:
        steps = f' in steps of {size}' if size > 1 else ''
        fixed = width.total - channels
        raise MaskError(
            f'{width.label} is {width.total}; expected a width from {size + fixed} to '
            f'{most * size + fixed}{steps}, because group {group!r} has {most} units there; is it '
            'the structure of another network?'
        )
    return count


def _contradiction(width: Width, rest: int, reason: Mapping[str, str]) -> MaskError:
    others = ', '.join(dict.fromkeys(reason[g] for g in width.per_unit if reason[g] != width.label))
    because = f' by {others}' if others else ', because these channels cannot be removed'
    return MaskError(f'{width.label} is {width.total}; expected {width.total - rest}{because}')


def choose(kept: Mapping[str, int], places: Places, how: How) -> Masks:
    """Return the earlier masks together with those that keep some units of groups.

    Args:
        kept: group -> how many of its units stay.
        places: where the units are.
        how: says which units stay.
    """
    graph = places.graph
    scores = _l1_norms(graph) if how.which == 'l1' else {}
    masks = {}
    for group, count in kept.items():
        left = places.units_left(group)
        order = left.nonzero().flatten()
        if how.which == 'l1':
            order = order[scores[group][order].argsort(descending=True, stable=True)]
        masks[group] = torch.zeros_like(left)
        masks[group][order[:count]] = True
    return Masks({**places.earlier, **masks})


def _l1_norms(graph: ChannelGraph) -> dict[str, Tensor]:
    """Return group -> the mean |weight| of each unit, averaged over the layers that make it."""
    sums = units.score_units(
        graph,
        'producers',
        lambda m: units.unit_sums(units.widen(units.values_of(graph, m)).abs(), m),
    )
    members = units.scored_members(graph, 'producers')
    found = {}
    for group, layers in sums.items():
        sizes = [
            graph.parameter(m.param).numel()
            / graph.parameter(m.param).shape[m.dim]
            * m.index.shape[1]
            for m in members[group]
        ]
        found[group] = (layers / torch.tensor(sizes)[:, None]).mean(dim=0)
    return found


def units_left(places: Places) -> dict[str, int]:
    """Return group -> how many units earlier masks leave."""
    return {name: int(places.units_left(name).sum()) for name in places.graph.groups}


def check_frozen(graph: ChannelGraph, width: Width, param: str, dim: int) -> None:
    """Raise MaskError if a width is another one than that of channels that stay."""
    if not width.per_unit and width.total != width.frozen:
        reasons = (f.reason for f in graph.frozen if (f.param, f.dim) == (param, dim))
        reason = next(reasons, 'no channel of this layer can be cut')
        raise MaskError(f'{width.label} is {width.total}; expected {width.frozen}: {reason}')
