"""Statistics against scipy, brute force, and methods whose true difference is known."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from easypruner.report.statistics import (
    Paired,
    compare_paired,
    corrected,
    holm,
    permutation_test,
    resolution,
    t_interval,
    t_test,
)


def draws(count: int, seed: int, mean: float = 0.0) -> list[float]:
    return np.random.default_rng(seed).normal(mean, 0.7, count).tolist()


@pytest.mark.parametrize(('count', 'seed'), [(2, 0), (3, 1), (5, 2), (12, 3)])
def test_intervals_and_tests_are_those_of_scipy(count: int, seed: int) -> None:
    values = draws(count, seed, mean=0.4)
    expected = stats.ttest_1samp(values, 0)
    assert t_test(values) == pytest.approx(expected.pvalue)
    assert t_interval(values) == pytest.approx(tuple(expected.confidence_interval(0.95)))


@pytest.mark.parametrize('values', [draws(5, 0), draws(9, 1), [1.0, 1.0, -1.0, 0.0], [0.0, 0.0]])
def test_permutation_test_counts_all_signs(values: list[float]) -> None:
    sums = [abs(np.dot(signs, values)) for signs in itertools.product((1, -1), repeat=len(values))]
    expected = np.mean([total >= abs(sum(values)) - 1e-9 for total in sums])
    assert permutation_test(values) == pytest.approx(expected)
    paired = stats.permutation_test(
        (values,), np.sum, permutation_type='samples', n_resamples=np.inf
    )
    assert permutation_test(values) == pytest.approx(min(1, paired.pvalue))


def test_holm_rejects_what_the_step_down_procedure_rejects() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        values = rng.uniform(0, 0.2, 6).tolist()
        adjusted = holm(values)
        rejected = set()
        for step, number in enumerate(np.argsort(values)):
            if values[number] > 0.05 / (6 - step):
                break
            rejected.add(int(number))
        assert {n for n, p in enumerate(adjusted) if p <= 0.05} == rejected
        assert holm(values[::-1]) == adjusted[::-1]


def test_noise_is_called_noise_at_the_nominal_rate() -> None:
    rng = np.random.default_rng(7)
    families = []
    for _ in range(600):
        seeds = rng.normal(90, 1, 5)
        methods = [seeds + rng.normal(0, 0.5, 5) for _ in range(4)]
        reference = dict(enumerate(methods[0]))
        pairs = [compare_paired(dict(enumerate(m)), reference) for m in methods[1:]]
        families.append(corrected(pairs))
    wrong = np.mean([any(p.verdict != 'within noise' for p in family) for family in families])
    single = np.mean([family[0].p < 0.05 for family in families])
    assert wrong <= 0.05 + 3 * 0.009
    assert abs(single - 0.05) <= 3 * 0.009


@pytest.mark.parametrize('step', [0.7, 1.4])
def test_equal_differences_of_coarse_accuracies_are_no_certainty(step: float) -> None:
    rng = np.random.default_rng(9)
    wrong, covered = [], []
    for _ in range(600):
        # The samples are few, so that three differences are often equal by chance.
        accuracies = np.round(rng.normal(90, 0.7, (9, 3)) / step) * step
        reference, *methods = (dict(enumerate(row.tolist())) for row in accuracies)
        found = resolution(accuracies.ravel().tolist())
        pairs = corrected([compare_paired(method, reference, found) for method in methods])
        wrong.append(any(pair.verdict != 'within noise' for pair in pairs))
        low, high = pairs[0].low, pairs[0].high
        assert low is not None and high is not None
        covered.append(low <= 0 <= high)
    assert np.mean(wrong) <= 0.05
    assert np.mean(covered) >= 0.95


def test_the_resolution_is_that_of_a_sample() -> None:
    accuracies = [100 * float(np.float32(right / 60)) for right in (50, 51, 54, 57)]
    assert resolution(accuracies) == pytest.approx(100 / 60, rel=1e-4)
    # The same accuracy, computed in two ways.
    assert resolution([*accuracies, 100 * 50 / 60]) == pytest.approx(100 / 60, rel=1e-4)
    assert resolution([90.0, 90.0]) == resolution([]) == 0


def test_a_method_that_is_better_by_a_point_and_a_half_is_found() -> None:
    rng = np.random.default_rng(8)
    verdicts: list[Paired] = []
    for _ in range(100):
        seeds = rng.normal(90, 2, 5)
        better, noise = seeds + 1.5 + rng.normal(0, 0.4, 5), seeds + rng.normal(0, 0.4, 5)
        reference = dict(enumerate(seeds))
        pairs = [compare_paired(dict(enumerate(m)), reference) for m in (better, noise)]
        verdicts.append(corrected(pairs)[0])
    assert np.mean([entry.verdict == 'better' for entry in verdicts]) > 0.95


def test_pairs_are_those_of_common_seeds() -> None:
    pair = compare_paired({0: 90.0, 2: 91.0, 5: 95.0, 6: 92.0}, {6: 91.0, 2: 90.5, 0: 90.0, 9: 0.0})
    assert pair.seeds == (0, 2, 6)
    assert pair.mean == pytest.approx(0.5)
    assert pair.least_exact == 0.25


@pytest.mark.parametrize('count', [0, 1, 2])
def test_few_seeds_have_no_verdict_and_no_part_in_the_correction(count: int) -> None:
    few = compare_paired({n: 95.0 + n for n in range(count)}, dict.fromkeys(range(9), 90.0))
    many = compare_paired({n: 92.0 + n / 10 for n in range(5)}, dict.fromkeys(range(9), 90.0))
    pair = corrected([few, many])
    assert pair[0].verdict == 'too few seeds' and pair[0].corrected is None
    assert (pair[1].verdict, pair[1].corrected, pair[1].family) == ('better', many.p, 1)


def test_equal_differences() -> None:
    seeds = {0: 90.1, 1: 90.7, 2: 91.3, 3: 90.2, 4: 89.9}
    assert compare_paired({s: v + 1.5 for s, v in seeds.items()}, seeds).verdict == 'better'
    assert compare_paired({s: v - 1.5 for s, v in seeds.items()}, seeds).verdict == 'worse'
    assert compare_paired(seeds, seeds).verdict == 'within noise'
