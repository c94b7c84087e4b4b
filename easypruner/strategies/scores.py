"""Scores of units, from which a budget makes masks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from easypruner.graph.masks import Masks


class Scores(Mapping[str, Tensor]):
    """An immutable mapping from group name to scores of shape ``(units,)``, higher = keep.

    The tensors rank the units of all groups. A subclass may know more than the tensors say, such as
    the scores of each coupled layer. A budget therefore compares scores with a threshold by
    :meth:`above`, and selects groups by :meth:`only`. A plain dict of the tensors would lose this.

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
        """Return a mapping as scores; scores are returned unchanged."""
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
            threshold: one threshold for all groups, or group -> its threshold.

        Raises:
            KeyError: a group has no threshold.
        """
        limits = _thresholds(threshold, self)
        return Masks({name: score > limits[name] for name, score in self.items()})

    def only(self, names: Iterable[str]) -> Scores:
        """Return the scores of some groups, in the order of ``names``.

        Raises:
            KeyError: a group has no scores.
        """
        return Scores({name: self[name] for name in names})


class VoteScores(Scores):
    """Scores by a vote of coupled layers, as in the released MaskSparsity code.

    Each layer votes against the units whose score is not above the threshold. A unit is removed
    when at least *i* layers vote against it. *i* is the largest number that still removes as many
    units as the layer with the fewest votes. The result depends on the threshold, so this class
    keeps the scores of each layer. For ranking, the score of a unit is the lowest threshold at
    which the vote removes it.

    Args:
        layers: group -> scores of shape ``(layers, units)``.
    """

    def __init__(self, layers: Mapping[str, Tensor]) -> None:
        super().__init__({name: _vote_ranking(scores) for name, scores in layers.items()})
        self._layers = dict(layers)

    def above(self, threshold: float | Mapping[str, float]) -> Masks:
        limits = _thresholds(threshold, self)
        return Masks({n: ~_vote_removes(s, limits[n]) for n, s in self._layers.items()})

    def only(self, names: Iterable[str]) -> VoteScores:
        return VoteScores({name: self._layers[name] for name in names})


def _thresholds(
    threshold: float | Mapping[str, float], groups: Iterable[str]
) -> Mapping[str, float]:
    """Return group -> threshold."""
    return threshold if isinstance(threshold, Mapping) else dict.fromkeys(groups, threshold)


def _vote_removes(layers: Tensor, threshold: float) -> Tensor:
    """Return the units that the vote removes at a threshold, ``(units,)``."""
    votes = layers <= threshold
    fewest = int(votes.sum(dim=1).min())
    if fewest == 0:
        return torch.zeros(layers.shape[1], dtype=torch.bool)
    counts = votes.sum(dim=0)
    needed = max(i for i in range(1, len(layers) + 1) if int((counts >= i).sum()) >= fewest)
    return counts >= needed


def _vote_ranking(layers: Tensor) -> Tensor:
    """Return the lowest threshold at which the vote removes each unit, ``(units,)``."""
    # A unit has i votes from the threshold that is the i-th smallest of its scores.
    by_votes = np.sort(layers.double().numpy(), axis=0)
    by_layer = np.sort(layers.double().numpy(), axis=1)
    ranking = np.full(layers.shape[1], np.inf)
    for threshold in np.unique(by_votes):
        fewest = (by_layer <= threshold).sum(axis=1).min()
        if fewest == 0:
            continue
        removed = by_votes <= threshold
        enough = removed.sum(axis=1) >= fewest
        outvoted = removed[np.flatnonzero(enough).max()]
        ranking[outvoted & np.isinf(ranking)] = threshold
    return torch.from_numpy(ranking).to(layers.dtype)
