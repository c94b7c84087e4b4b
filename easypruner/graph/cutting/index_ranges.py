"""Index ranges: ascending indices as short, readable text."""

from __future__ import annotations

import re
from collections.abc import Sequence

_RANGES = re.compile(r'\d+(-\d+)?(,\d+(-\d+)?)*')


def to_ranges(indices: Sequence[int]) -> str:
    """Write ascending integers as ranges.

    >>> to_ranges([0, 1, 2, 5, 7, 8])
    '0-2,5,7-8'
    """
    parts: list[list[int]] = []
    for i in indices:
        if parts and parts[-1][1] == i - 1:
            parts[-1][1] = i
        else:
            parts.append([i, i])
    return ','.join(str(a) if a == b else f'{a}-{b}' for a, b in parts)


def from_ranges(text: str, limit: int) -> tuple[int, ...]:
    """Read what :func:`to_ranges` wrote; ValueError unless ascending and below ``limit``."""
    if not _RANGES.fullmatch(text):
        raise ValueError('expected ranges such as "0-3,7"')
    indices: list[int] = []
    for part in text.split(','):
        first, _, last = part.partition('-')
        start, stop = int(first), int(last or first)
        if stop < start or stop >= limit or (indices and start <= indices[-1]):
            raise ValueError(f'expected ascending indices below {limit}')
        indices.extend(range(start, stop + 1))
    return tuple(indices)
