"""Index ranges: ascending indices as short text, such as ``0-2,5``."""

from __future__ import annotations

import re
from collections.abc import Sequence

_RANGES = re.compile(r'\d+(-\d+)?(,\d+(-\d+)?)*')


def to_ranges(indices: Sequence[int]) -> str:
    """Return ascending integers as text.

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
    """Return the integers of a text that :func:`to_ranges` returned.

    Raises:
        ValueError: the text is not ranges, or they are not ascending and below ``limit``.
    """
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
