"""Choosing, among masks of the same cost, those of a faster network that keep nearly as much."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from easypruner.errors import BudgetError
from easypruner.graph import ChannelGraph, Masks
from easypruner.runtimes.forecast import Forecast
from easypruner.strategies.budgets.cost_scores import divided, saved_by
from easypruner.strategies.budgets.ranking import Ranking
from easypruner.strategies.scores import Scores

_STEPS = 20
"""The number of rankings between that by scores and that by time."""
_MOST = 4.0
"""The largest factor between the time of a multiply-add of a group and that of the network."""


def faster(
    scores: Scores,
    graph: ChannelGraph,
    within: Callable[[Scores], Masks],
    forecast: Forecast,
    give_up: float,
) -> Masks:
    """Return the masks of the least forecast time that keep most of the scores.

    Two rankings are mixed: that by the scores, and that by the scores divided by the time which a
    multiply-add of the group takes. Each unit is ranked by the weighted mean of its positions in
    both. Of all weights, the one with the least time counts.

    Args:
        scores: the scores, higher = keep.
        graph: the channel graph of the network.
        within: returns the masks that a ranking by other scores leads to.
        forecast: the forecast of the network's time.
        give_up: the largest share of the scores kept by the ranking by scores that may be lost.

    Raises:
        BudgetError: a score is below 0, so that shares of scores say nothing.
    """
    _check(scores)
    plain = _positions(scores)
    fast = _positions(divided(scores, _times_per_mac(scores, graph, forecast)))
    best = within(scores)
    least = (1 - give_up) * _kept(scores, best)
    time = forecast.seconds(best)
    for step in range(1, _STEPS + 1):
        masks = within(_mixed(scores, plain, fast, step / _STEPS))
        seconds = forecast.seconds(masks)
        if seconds < time and _kept(scores, masks) >= least:
            best, time = masks, seconds
    return best


def _check(scores: Scores) -> None:
    for name, score in scores.items():
        if bool((score < 0).any()):
            raise BudgetError(
                f'a score of group {name!r} is {float(score.min()):.4g}, but for_speed gives up a '
                'share of the scores, which have to be at least 0; use another source, or '
                'for_speed=0'
            )


def _positions(scores: Mapping[str, Tensor]) -> Tensor:
    """Return the position of each unit in the order of removal, in one row, as a share."""
    ranking = Ranking.of(scores)
    count = len(ranking.rank)
    # The best unit of each group is not in the order: it is never removed.
    positions = torch.ones(count, dtype=torch.float64)
    positions[ranking.order] = torch.arange(len(ranking.order), dtype=torch.float64) / count
    return positions


def _mixed(scores: Scores, plain: Tensor, fast: Tensor, weight: float) -> Scores:
    row = (1 - weight) * plain + weight * fast
    parts = torch.split(row, [score.numel() for score in scores.values()])
    return Scores(dict(zip(scores, parts, strict=True)))


def _times_per_mac(scores: Scores, graph: ChannelGraph, forecast: Forecast) -> dict[str, float]:
    """Return the time of a multiply-add of each group, relative to that of the whole network."""
    mean = forecast.seconds() / max(graph.cost().macs, 1)

    def relative(name: str) -> float:
        macs, seconds = saved_by(name, graph, forecast)
        return min(max(seconds / (macs * mean), 1 / _MOST), _MOST) if macs > 0 else 1.0

    return {name: relative(name) for name in scores}


def _kept(scores: Scores, masks: Masks) -> float:
    return sum(float(score.double()[masks[name]].sum()) for name, score in scores.items())
