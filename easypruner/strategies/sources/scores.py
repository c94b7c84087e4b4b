"""Combines the scores of coupled layers, and makes the scores of groups comparable."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from easypruner.errors import EasyPrunerError
from easypruner.strategies.scores import Scores, VoteScores


def _reduce_by(reduce: Callable[[Tensor], Tensor]) -> Callable[[Mapping[str, Tensor]], Scores]:
    return lambda layers: Scores({name: reduce(scores) for name, scores in layers.items()})


REDUCTIONS: dict[str, Callable[[Mapping[str, Tensor]], Scores]] = {
    'mean': _reduce_by(lambda layers: layers[0] if layers.shape[0] == 1 else layers.mean(dim=0)),
    'max': _reduce_by(lambda layers: layers.amax(dim=0)),
    'sum': _reduce_by(lambda layers: layers.sum(dim=0)),
    'first': _reduce_by(lambda layers: layers[0]),
    'vote': VoteScores,
}
"""Name -> how the scores of coupled layers are combined: group -> ``(layers, units)`` -> scores."""


def _divide_by(measure: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def normalize(scores: Tensor) -> Tensor:
        divisor = float(measure(scores))
        if divisor < 0 or (divisor == 0 and bool(scores.any())):
            raise EasyPrunerError(
                f'have one of {divisor:g}, and dividing by it would not rank them'
            )
        return scores / divisor if divisor else scores

    return normalize


def standardize(scores: Tensor) -> Tensor:
    """Subtract the mean and divide by the standard deviation; return zeros if all are equal.

    >>> standardize(torch.tensor([1.0, 2.0, 3.0]))
    tensor([-1.2247,  0.0000,  1.2247])
    """
    if bool((scores == scores[0]).all()):
        return scores - scores
    return (scores - scores.mean()) / scores.std(correction=0)


def lamp_scores(scores: Tensor) -> Tensor:
    """Divide each score by the sum of all scores that are not lower (LAMP).

    The highest score becomes 1, and zeros stay zeros. Equal scores are ordered by their index.
    Lee et al., 2021, arXiv 2010.07611.

    Args:
        scores: ``(units,)``; in the paper they are squared magnitudes.

    Raises:
        EasyPrunerError: a score is below zero.

    >>> lamp_scores(torch.tensor([4.0, 1.0, 5.0]))
    tensor([0.4444, 0.1000, 1.0000])
    """
    if bool((scores < 0).any()):
        raise EasyPrunerError(f'have scores below 0, as low as {float(scores.min()):g}')
    order = torch.argsort(scores, stable=True)
    ranked = scores[order].double()
    rest = ranked.flip(0).cumsum(0).flip(0)
    shares = torch.where(ranked == 0, 0, ranked / rest).to(scores)
    return shares[order.argsort()]


def rank_scores(scores: Tensor) -> Tensor:
    """Return the position of each score among those of its group, above 0 and up to 1.

    A budget that ranks all groups together then removes the same share of each. Equal scores are
    ordered by their index.

    >>> rank_scores(torch.tensor([4.0, -1.0, 5.0, 4.0]))
    tensor([0.5000, 0.2500, 1.0000, 0.7500])
    """
    positions = torch.argsort(scores, stable=True).argsort() + 1
    return positions / len(scores)


NORMALIZATIONS: dict[str, Callable[[Tensor], Tensor] | None] = {
    'none': None,
    'mean': _divide_by(lambda scores: scores.mean()),
    'max': _divide_by(lambda scores: scores.max()),
    'sum': _divide_by(lambda scores: scores.sum()),
    'gaussian': standardize,
    'lamp': lamp_scores,
    'rank': rank_scores,
}
"""Name -> how the scores of a group are made comparable with those of other groups."""


def normalize(scores: Scores, normalization: str) -> Scores:
    """Normalize the scores of each group.

    Args:
        scores: group -> ``(units,)``.
        normalization: a name of :data:`NORMALIZATIONS`.

    Raises:
        EasyPrunerError: the normalization would change the order of the scores, as with scores
            below zero; or the scores are those of a vote, which compares the scores of the layers
            themselves.
    """
    change = NORMALIZATIONS[normalization]
    if change is None:
        return scores
    if isinstance(scores, VoteScores):
        raise EasyPrunerError(
            f"reduction='vote' compares the layers' own scores with a threshold and cannot be "
            f"combined with normalization={normalization!r}; use normalization='none'"
        )
    changed: dict[str, Tensor] = {}
    try:
        for group, score in scores.items():
            changed[group] = change(score)
    except EasyPrunerError as error:
        raise EasyPrunerError(
            f'normalization={normalization!r} needs scores of at least 0, '
            f"but those of group {group!r} {error}; use normalization='gaussian' or 'none'"
        ) from None
    name = _find_nan(changed)
    if name is not None:
        raise EasyPrunerError(
            f'normalization={normalization!r} turns the scores of group {name!r} into NaN: the '
            f'highest is {float(scores[name].max()):g}; the weights are damaged or have diverged'
        )
    return Scores(changed)


def _find_nan(scores: Mapping[str, Tensor]) -> str | None:
    """Return the first group that has a score which is not a number; None if there is none."""
    # All groups at once first: there are many, and hardly ever one with such a score.
    if not scores or not torch.cat([score.flatten() for score in scores.values()]).isnan().any():
        return None
    return next(name for name, score in scores.items() if score.isnan().any())


def reduce_layers(scores: Mapping[str, Tensor], reduction: str) -> Scores:
    """Combine the scores of coupled layers into one score for each unit.

    Args:
        scores: group name -> ``(units,)`` or ``(layers, units)``, higher = keep.
        reduction: a name of :data:`REDUCTIONS`.

    Raises:
        EasyPrunerError: a score is NaN; the message names the group.

    >>> reduce_layers({'g': torch.tensor([[1.0, 4.0], [3.0, 0.0]])}, 'mean')['g']
    tensor([2., 2.])
    """
    own = {name: score.detach().cpu() for name, score in scores.items()}
    name = _find_nan(own)
    if name is not None:
        raise EasyPrunerError(
            f'group {name!r} has scores that are not numbers ({int(own[name].isnan().sum())} of '
            f'{own[name].numel()} are NaN); the weights from which they were computed are damaged'
        )
    layers = {name: score if score.dim() == 2 else score[None] for name, score in own.items()}
    return REDUCTIONS[reduction](layers)
