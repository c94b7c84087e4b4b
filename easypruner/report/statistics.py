"""Statistics of differences between methods: paired by seed, with intervals and corrected tests."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev

from scipy.special import stdtr, stdtrit

LEVEL = 0.95
"""The level of the intervals, and 1 minus the level of the tests."""
FEWEST = 3
"""The fewest pairs that a verdict needs."""
_EXACT = 16
_ROUNDING = 1e-9
"""The relative error that sums of the same numbers in another order may have."""
_EQUAL = 1e-4
"""Accuracies in percent that are closer are equal: no validation set has a million samples."""


@dataclass(frozen=True)
class Paired:
    """The difference of two methods, over the seeds that both have.

    Attributes:
        seeds: the common seeds.
        mean: the mean of the differences, in percentage points for accuracies.
        std: their sample standard deviation; None for less than two.
        low: the lower end of the interval of the mean by Student's t; None for less than two. It
            and ``p`` count the variance that rounding adds; see :func:`compare_paired`.
        high: the upper end.
        p: the p-value of the paired t-test, two-sided; None for less than two.
        exact: the p-value of the exact permutation test, which flips the signs of the differences;
            None for no or many pairs.
        corrected: ``p`` after Holm's correction for all comparisons of the family; the verdict
            comes from it. None if there are too few seeds for a verdict.
        family: the number of comparisons of the family.
    """

    seeds: tuple[int, ...]
    mean: float
    std: float | None
    low: float | None
    high: float | None
    p: float | None
    exact: float | None
    corrected: float | None = None
    family: int = 1

    @property
    def least_exact(self) -> float:
        """The smallest p-value that the exact test can have with this number of seeds."""
        return min(1.0, 2.0 ** (1 - len(self.seeds)))

    @property
    def verdict(self) -> str:
        """'better', 'worse', 'within noise', or 'too few seeds'."""
        if self.corrected is None or len(self.seeds) < FEWEST:
            return 'too few seeds'
        # The least double under the level would decide otherwise.
        if self.corrected > (1 - LEVEL) * (1 + _ROUNDING):
            return 'within noise'
        return 'better' if self.mean > 0 else 'worse'


def resolution(accuracies: Iterable[float]) -> float:
    """Return the smallest step between different accuracies; 0 if all are equal.

    It is that of one sample of the validation data if there are enough runs, and never smaller.

    >>> resolution([97.5, 98.0, 97.5, 99.0])
    0.5
    """
    ordered = sorted(accuracies)
    steps = (after - before for before, after in itertools.pairwise(ordered))
    return min((step for step in steps if step > _EQUAL), default=0.0)


def compare_paired(
    method: Mapping[int, float], reference: Mapping[int, float], step: float = 0.0
) -> Paired:
    """Compare two methods over the seeds that both have.

    Accuracies are multiples of a step, one sample of the validation data. Where the spread over
    seeds is not much larger, a few differences are often equal by chance, and look as if they were
    certain. The variance that rounding two numbers adds, 2 * step^2 / 12, is therefore added to
    that of the differences.

    Args:
        method: seed -> accuracy of the method.
        reference: seed -> accuracy of the method that it is compared with.
        step: the step; see :func:`resolution`.

    >>> compare_paired({0: 91.0, 1: 92.1, 2: 91.4}, {0: 89.5, 1: 90.5, 2: 90.0}).verdict
    'better'
    """
    seeds = tuple(sorted(method.keys() & reference.keys()))
    differences = [method[seed] - reference[seed] for seed in seeds]
    rounding = step**2 / 6
    low, high = t_interval(differences, rounding=rounding) or (None, None)
    p = t_test(differences, rounding)
    return Paired(
        seeds=seeds,
        mean=fmean(differences) if differences else 0.0,
        std=stdev(differences) if len(differences) > 1 else None,
        low=low,
        high=high,
        p=p,
        exact=permutation_test(differences) if 0 < len(differences) <= _EXACT else None,
        corrected=p,
    )


def corrected(comparisons: Sequence[Paired]) -> list[Paired]:
    """Return comparisons with p-values that Holm's method has corrected for their number.

    Comparisons of too few seeds have no verdict and no corrected p-value, and do not count.
    """
    tested = [
        number
        for number, entry in enumerate(comparisons)
        if entry.p is not None and len(entry.seeds) >= FEWEST
    ]
    values = holm([comparisons[number].p or 0.0 for number in tested])
    by_number = dict(zip(tested, values, strict=True))
    return [
        replace(entry, corrected=by_number.get(number), family=max(1, len(tested)))
        for number, entry in enumerate(comparisons)
    ]


def t_interval(
    values: Sequence[float], level: float = LEVEL, rounding: float = 0.0
) -> tuple[float, float] | None:
    """Return the interval of the mean by Student's t; None for less than two values.

    Args:
        values: the values.
        level: the level.
        rounding: the variance that is added to that of the values.
    """
    if len(values) < 2:
        return None
    half = float(stdtrit(len(values) - 1, (1 + level) / 2)) * math.hypot(
        stdev(values), math.sqrt(rounding)
    )
    half /= math.sqrt(len(values))
    return fmean(values) - half, fmean(values) + half


def t_test(values: Sequence[float], rounding: float = 0.0) -> float | None:
    """Return the two-sided p-value that the mean is 0; None for less than two values.

    Args:
        values: the values.
        rounding: the variance that is added to that of the values.
    """
    if len(values) < 2:
        return None
    mean, deviation = fmean(values), math.hypot(stdev(values), math.sqrt(rounding))
    # Equal differences of rounded numbers are equal up to rounding.
    if deviation <= _ROUNDING * max(map(abs, values)):
        return 0.0 if mean else 1.0
    return 2 * float(stdtr(len(values) - 1, -abs(mean) / deviation * math.sqrt(len(values))))


def permutation_test(values: Sequence[float]) -> float:
    """Return the exact two-sided p-value of the test that flips the signs of paired differences.

    It is the share of the 2^n signs for which the sum is at least as far from 0 as it is.

    >>> permutation_test([1.0, 2.0, 3.0])
    0.25
    """
    if not values:
        return 1.0
    slack = _ROUNDING * sum(map(abs, values))
    limit = abs(math.fsum(values)) - slack
    # Opposite signs have opposite sums, so the first sign is fixed.
    first, *others = values
    signs = itertools.product((1, -1), repeat=len(others))
    sums = (first + sum(s * v for s, v in zip(sign, others, strict=True)) for sign in signs)
    return sum(abs(total) >= limit for total in sums) / 2 ** len(others)


def holm(values: Sequence[float]) -> list[float]:
    """Return p-values corrected by Holm's step-down method (Holm, 1979), in the order given.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    adjusted = [0.0] * len(values)
    largest = 0.0
    for rank, number in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        largest = max(largest, min(1.0, (len(values) - rank) * values[number]))
        adjusted[number] = largest
    return adjusted
