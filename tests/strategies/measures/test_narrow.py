"""A warning about groups of which few units stay."""

from __future__ import annotations

import pytest
import torch

from easypruner import Masks
from easypruner.strategies.measures.narrow import narrow_warning


def masks(**counts: tuple[int, int]) -> Masks:
    """Return masks that keep some units, from (kept, size) of each group."""
    return Masks({name: torch.arange(size) < kept for name, (kept, size) in counts.items()})


@pytest.mark.parametrize('counts', [(1, 8), (2, 8), (2, 16), (7, 64), (31, 256)])
def test_few_units_are_named(counts: tuple[int, int]) -> None:
    text = narrow_warning(masks(stem=counts, other=(8, 16)))
    assert f"{counts[0]} of {counts[1]} in 'stem'" in text
    assert 'other' not in text
    assert 'max_removed' in text


@pytest.mark.parametrize(
    'counts', [(8, 8), (3, 8), (1, 7), (2, 4), (0, 8), (8, 64), (32, 256), (64, 64)]
)
def test_groups_that_were_small_or_stay_wide_are_not(counts: tuple[int, int]) -> None:
    assert narrow_warning(masks(stem=counts)) == ''


def test_the_narrowest_are_named_and_the_others_counted() -> None:
    text = narrow_warning(masks(a=(2, 16), b=(1, 64), c=(1, 8), d=(2, 32), e=(9, 16)))
    assert text.startswith("few units stay: 1 of 64 in 'b', 2 of 32 in 'd', ")
    assert 'and in 1 more groups' in text
