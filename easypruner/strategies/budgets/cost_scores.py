"""Scores relative to costs: what a unit is worth for each multiply-add or second that it takes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from easypruner.graph import ChannelGraph
from easypruner.runtimes.forecast import Forecast
from easypruner.strategies.scores import Scores

RANKS = ('score', 'per_macs', 'per_latency')
_LEAST_RATE = 0.01
"""The least cost of a unit that scores are divided by, as a share of the mean."""


def ranked_scores(scores: Scores, graph: ChannelGraph, rank: str, forecast: Forecast) -> Scores:
    """Return scores by which units are removed first that cost most for what they are worth.

    Args:
        scores: the scores, higher = keep.
        graph: the channel graph of the network.
        rank: a name of :data:`RANKS`: ``'per_latency'`` divides the scores of a group by the time
            that one of its units saves, ``'per_macs'`` by its MACs.
        forecast: the forecast of the network's time.
    """
    if rank == 'score':
        return scores
    saved = {name: saved_by(name, graph, forecast) for name in scores}
    rates = {name: each[rank == 'per_latency'] for name, each in saved.items()}
    mean = sum(rates.values()) / max(len(rates), 1) or 1.0
    return divided(scores, {name: max(rate / mean, _LEAST_RATE) for name, rate in rates.items()})


def divided(scores: Scores, rates: Mapping[str, float]) -> Scores:
    """Divide scores by a rate of their group: what a unit of it costs, above 0."""
    return Scores({name: _per(score, rates[name]) for name, score in scores.items()})


def _per(score: Tensor, rate: float) -> Tensor:
    """Divide scores by a rate. Those below zero are worth less, the cheaper they are to keep."""
    value = score.double()
    return value.where(value < 0, value / rate).where(value >= 0, value * rate)


def saved_by(name: str, graph: ChannelGraph, forecast: Forecast) -> tuple[float, float]:
    """Return the MACs and the seconds that a unit of a group saves, on average over half of it."""
    size = graph.groups[name].size
    kept = max(size // 2, 1)
    if kept == size:
        return 0.0, 0.0
    masks = {name: torch.arange(size) < kept}
    macs = graph.cost().macs - graph.cost(masks).macs
    seconds = forecast.seconds() - forecast.seconds(masks)
    return macs / (size - kept), seconds / (size - kept)
