"""Scores: what a budget turns into masks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from easypruner.graph.masks import Masks


class Scores(Mapping[str, Tensor]):
    """An immutable mapping from group name to scores of shape ``(units,)``, higher = keep.

    Its tensors rank the units of all groups. Its methods know more, such as the votes of coupled
    layers: a budget that compares scores with a threshold does so by :meth:`above`, and one that
    needs those of some groups gets them by :meth:`only`. In a plain dict of the tensors, what the
    methods know is lost.

    >>> scores = Scores({'conv1': torch.tensor([0.2, 0.6]), 'conv2': torch.tensor([0.1, 0.9])})
    >>> scores.above(0.5)['conv1']
    tensor([False,  True])
    >>> scores.only(['conv2']).above({'conv2': 0.05})['conv2']
    tensor([True, True])
    """

    def __init__(self, scores: Mapping[str, Tensor]) -> None:
        self._scores = dict(scores)

    @classmethod
    def of(cls, scores: Mapping[str, Tensor]) -> Scores:
        """Return scores that are given as such, or as another mapping."""
        return scores if isinstance(scores, Scores) else Scores(scores)

    def __getitem__(self, name: str) -> Tensor:
        return self._scores[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._scores)

    def __len__(self) -> int:
        return len(self._scores)

    def above(self, threshold: float | Mapping[str, float]) -> Masks:
        """Return masks that keep the units whose score is above a threshold.

        Args:
            threshold: of all groups, or group -> its own.

        Raises:
            KeyError: a group has no threshold.
        """
        limits = _of_each(threshold, self)
        return Masks({name: score > limits[name] for name, score in self.items()})

    def only(self, names: Iterable[str]) -> Scores:
        """Return the scores of some groups, in the order of ``names``.

        Raises:
            KeyError: a group that has no scores.
        """
        return Scores({name: self[name] for name in names})


class VoteScores(Scores):
    """Scores of a vote among coupled layers, as the released MaskSparsity code holds it.

    Each layer votes against the units at or under the threshold. A unit goes when at least *i*
    layers vote so, *i* the largest number that still removes as many units as the layer that
    asked for the fewest. The outcome depends on the threshold, so the layers' own scores are
    kept; for ranking, a unit's score is the lowest threshold at which the vote removes it.

    Args:
        layers: group -> scores of shape ``(layers, units)``.
    """

    def __init__(self, layers: Mapping[str, Tensor]) -> None:
        super().__init__({name: _vote_ranking(scores) for name, scores in layers.items()})
        self._layers = dict(layers)

    def above(self, threshold: float | Mapping[str, float]) -> Masks:
        limits = _of_each(threshold, self)
        return Masks({n: ~_vote_removes(s, limits[n]) for n, s in self._layers.items()})

    def only(self, names: Iterable[str]) -> VoteScores:
        return VoteScores({name: self._layers[name] for name in names})


def _of_each(threshold: float | Mapping[str, float], groups: Iterable[str]) -> Mapping[str, float]:
    return threshold if isinstance(threshold, Mapping) else dict.fromkeys(groups, threshold)


def _vote_removes(layers: Tensor, threshold: float) -> Tensor:
    votes = layers <= threshold
    fewest = int(votes.sum(dim=1).min())
    if fewest == 0:
        return torch.zeros(layers.shape[1], dtype=torch.bool)
    ballots = votes.sum(dim=0)
    needed = max(i for i in range(1, len(layers) + 1) if int((ballots >= i).sum()) >= fewest)
    return ballots >= needed


def _vote_ranking(layers: Tensor) -> Tensor:
    # The i-th smallest score over the layers is the threshold from which a unit has i votes.
    by_votes = np.sort(layers.double().numpy(), axis=0)
    asked = np.sort(layers.double().numpy(), axis=1)
    ranking = np.full(layers.shape[1], np.inf)
    for threshold in np.unique(by_votes):
        fewest = (asked <= threshold).sum(axis=1).min()
        if fewest == 0:
            continue
        removed = by_votes <= threshold
        enough = removed.sum(axis=1) >= fewest
        goes = removed[np.flatnonzero(enough).max()]
        ranking[goes & np.isinf(ranking)] = threshold
    return torch.from_numpy(ranking).to(layers.dtype)
