"""Formatted numbers, compared with the numbers themselves."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from easypruner.report.text import format_count, format_duration, format_size

FACTORS = {'': 1, 'k': 1e3, 'M': 1e6, 'G': 1e9, 'T': 1e12, 'P': 1e15}
BYTES = {'B': 1, 'KiB': 2**10, 'MiB': 2**20, 'GiB': 2**30, 'TiB': 2**40}


@given(st.integers(0, 10**17))
def test_counts_keep_three_digits(value: int) -> None:
    number, _, unit = format_count(value).partition(' ')
    assert float(number) * FACTORS[unit] == pytest.approx(value, rel=0.0051)
    assert 'e' not in number


@given(st.integers(0, 2**49))
def test_sizes_keep_three_digits(value: int) -> None:
    number, unit = format_size(value).split()
    assert float(number) * BYTES[unit] == pytest.approx(value, rel=0.0051)
    assert 'e' not in number


@pytest.mark.parametrize(
    ('value', 'text'), [(999, '999'), (999_499, '999 k'), (999_500, '1 M'), (1000, '1 k')]
)
def test_rounding_moves_to_the_next_unit(value: int, text: str) -> None:
    assert format_count(value) == text


@pytest.mark.parametrize(
    ('seconds', 'text'),
    [(0, '0.0 s'), (59.96, '1 min 00 s'), (3599.6, '1 h 00 min'), (7199, '2 h 00 min')],
)
def test_durations_never_show_sixty(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
