"""Uniform widths: groups of a family keep the same number of units, whatever the budget is."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from easypruner.graph import ChannelGraph, Masks
from easypruner.graph.limits import families_of
from easypruner.strategies.scores import Scores


def pooled(scores: Mapping[str, Tensor], families: Sequence[Sequence[str]]) -> dict[str, Tensor]:
    """Return scores that are the same in each group of a family, but for the order of the units.

    The lowest unit of each group gets the mean of the scores of all lowest units, and so on.

    Args:
        scores: group -> ``(units,)``, higher = keep.
        families: the names of groups that keep the same number of units.
    """
    found = dict(scores)
    for names in families:
        orders = [scores[name].argsort(stable=True) for name in names]
        ranked = [scores[name].double()[o] for name, o in zip(names, orders, strict=True)]
        # Infinite scores of both signs have no mean; then the lowest counts.
        mean = torch.stack(ranked).mean(0)
        common = torch.where(mean.isnan(), torch.stack(ranked).amin(0), mean)
        for name, order in zip(names, orders, strict=True):
            found[name] = torch.empty_like(common).index_put_((order,), common)
    return found


def uniformly(call: Callable[..., Masks]) -> Callable[..., Masks]:
    """Return the ``__call__`` of a budget, which observes ``uniform`` of the groups' limits."""

    @functools.wraps(call)
    def observing(
        self: Any, scores: Scores, graph: ChannelGraph, *args: Any, **kwargs: Any
    ) -> Masks:
        sizes = {name: group.size for name, group in graph.groups.items()}
        families = families_of(graph.limits, sizes)
        if not families:
            return call(self, scores, graph, *args, **kwargs)
        # A group without scores stays whole, and so do the others of its family.
        whole = {n for names in families if not scores.keys() >= {*names} for n in names}
        families = [names for names in families if names[0] not in whole]
        scored = {name: score for name, score in scores.items() if name not in whole}
        common = Scores(pooled(scored, families))
        return _equalized(call(self, common, graph, *args, **kwargs), common, families)

    return observing


def _equalized(
    masks: Mapping[str, Tensor], scores: Mapping[str, Tensor], families: Sequence[Sequence[str]]
) -> Masks:
    """Return masks that keep as many units in each group of a family as in its widest one."""
    found = dict(masks)
    for names in families:
        kept = [int(masks[n].sum()) if n in masks else scores[n].numel() for n in names]
        if len({*kept}) > 1:
            for name in names:
                best = scores[name].argsort(stable=True, descending=True)[: max(kept)]
                mask = torch.zeros(scores[name].numel(), dtype=torch.bool)
                found[name] = mask.index_fill_(0, best, True)
    return Masks(found)
