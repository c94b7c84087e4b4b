"""Index ranges: ascending indices as short text, such as ``0-2,5``."""

from __future__ import annotations

import re
from collections.abc import Sequence

from easypruner.base.json_fields import Field

_RANGES = re.compile(r'[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*')
_MOST = 2**20
_MOST_IN_ALL = 2**23


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
        raise ValueError('ranges such as "0-3,7"')
    indices: list[int] = []
    for part in text.split(','):
        first, _, last = part.partition('-')
        start, stop = int(first), int(last or first)
        if stop - start >= _MOST or len(indices) > _MOST:
            raise ValueError(f'at most {_MOST} indices')
        if stop < start or stop >= limit or (indices and start <= indices[-1]):
            raise ValueError(f'ascending indices below {limit}')
        indices.extend(range(start, stop + 1))
    return tuple(indices)


class RangeReader:
    """Reads the index ranges of a file. Equal ones are read once, and their number is bounded.

    A few characters may stand for many indices, so a small file could fill the memory.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[str, int], tuple[int, ...]] = {}
        self._total = 0

    def read(self, field: Field, limit: int) -> tuple[int, ...]:
        """Return the indices of a field, which are below ``limit``.

        Raises:
            EasyPrunerError: the field does not have such ranges, or the file has too many indices;
                of the class of the field's errors.
        """
        key = field.text(), limit
        if key not in self._known:
            try:
                self._known[key] = from_ranges(*key)
            except ValueError as error:
                field.fail(str(error))
            self._total += len(self._known[key])
            if self._total > _MOST_IN_ALL:
                field.fail(f'at most {_MOST_IN_ALL} different indices in the file')
        return self._known[key]
