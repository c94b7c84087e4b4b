"""The fields of a record's file: index ranges, shapes, and what is wrong with them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from easypruner.errors import RecordError

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


def content_hash(content: Mapping[str, Any]) -> str:
    """Return what tells whether a file was edited or damaged."""
    text = json.dumps(content, sort_keys=True, separators=(',', ':'))
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Fields:
    """Reads the fields of a file from outside, and names the one that is wrong."""

    file: str

    def shape(self, value: Any, place: str) -> tuple[int, ...]:
        """Return a list of sizes."""
        if not isinstance(value, list) or not all(_is_size(size) for size in value):
            raise self.error(place, 'expected sizes, whole numbers of at least 0')
        return tuple(value)

    def indices(self, text: Any, limit: int, place: str) -> tuple[int, ...]:
        """Return indices below ``limit``."""
        try:
            return from_ranges(text, limit)
        except (ValueError, TypeError) as error:
            raise self.error(place, str(error)) from error

    def mapping(self, value: Any, place: str) -> dict[str, Any]:
        """Return a JSON object."""
        if not isinstance(value, dict):
            raise self.error(place, f'expected an object, met {type(value).__name__}')
        return value

    def error(self, place: str, text: str) -> RecordError:
        """Return the error of a field."""
        return RecordError(f'the architecture record {self.file!r} is not valid at {place}: {text}')


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
