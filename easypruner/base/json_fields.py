"""JSON files read field by field. Every error names the file and the field; a hash shows damage."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

from easypruner.base.checks import describe_range, is_number
from easypruner.errors import EasyPrunerError

_LARGEST_INTEGER = 2**63 - 1
_DEEPEST = 50
_DAMAGED = 'the file is damaged, or EasyPruner did not write it'


def read_json(
    path: str | os.PathLike[str], error: type[EasyPrunerError] = EasyPrunerError
) -> Field:
    """Read a JSON file.

    Args:
        path: path of an existing file.
        error: the class of errors that this function and the fields raise.

    Raises:
        EasyPrunerError: the file cannot be read or is not JSON.
    """
    file = str(path)
    try:
        value = json.loads(Path(path).read_bytes())
        check_depth(value)
        return Field(value, file, error=error)
    except (OSError, ValueError, RecursionError) as problem:
        raise error(f'{file!r} cannot be read as JSON: {problem}; {_DAMAGED}') from problem


def check_depth(value: Any) -> None:
    """Raise ValueError if a value is nested so deeply that functions cannot recurse into it."""
    level = [value]
    for _ in range(_DEEPEST):
        containers = [item for item in level if isinstance(item, dict | list)]
        level = [x for c in containers for x in (c.values() if isinstance(c, dict) else c)]
        if not level:
            return
    raise ValueError(f'it is nested more than {_DEEPEST} levels deep')


@dataclass(frozen=True)
class Field:
    """A value of a parsed JSON file, together with its path in the file.

    Attributes:
        value: the value that the JSON parser returned.
        file: the file's name, for messages.
        path: the path of ``value`` in the file; empty for the whole content.
        error: the class of errors that methods raise when the value is not of the expected kind.

    >>> Field({'rows': [{'macs': 3}]}, 'summary.json')['rows'].items()[0]['macs'].integer()
    3
    """

    value: Any
    file: str
    path: str = ''
    error: type[EasyPrunerError] = EasyPrunerError

    def fail(self, expected: str) -> NoReturn:
        """Raise an error that states the value of this field and what was expected."""
        got = repr(self.value)
        got = got if len(got) <= 60 else got[:57] + '...'
        path = self.path if len(self.path) <= 200 else self.path[:197] + '...'
        subject = f'field {path!r} of {self.file!r}' if path else repr(self.file)
        raise self.error(f'{subject} is {got}; expected {expected}; {_DAMAGED}')

    def __getitem__(self, key: str) -> Field:
        mapping = self._mapping()
        path = f'{self.path}.{key}' if self.path else key
        if key not in mapping:
            raise self.error(f'{self.file!r} has no field {path!r}; {_DAMAGED}')
        return replace(self, value=mapping[key], path=path)

    def get(self, key: str) -> Field | None:
        """Return the field ``key`` of an object, or None if it is absent or null."""
        return None if self._mapping().get(key) is None else self[key]

    def items(self) -> list[Field]:
        """Return the elements of a list."""
        if not isinstance(self.value, list):
            self.fail('a list')
        return [
            replace(self, value=value, path=f'{self.path}[{i}]')
            for i, value in enumerate(self.value)
        ]

    def entries(self) -> Iterator[tuple[str, Field]]:
        """Yield (key, field) for each key of an object."""
        for key in self._mapping():
            yield key, self[key]

    def text(self) -> str:
        """Return the value as a string."""
        if not isinstance(self.value, str):
            self.fail('a string')
        return self.value

    def number(self, least: float = -math.inf, most: float = math.inf) -> float:
        """Return the value as a finite number from ``least`` to ``most``, both included."""
        value = self.value
        huge = isinstance(value, int) and abs(value) > _LARGEST_INTEGER
        if huge or not is_number(value) or not least <= value <= most:
            self.fail(f'a finite number{describe_range(least, most)}')
        return value

    def integer(self, least: int = -_LARGEST_INTEGER) -> int:
        """Return the value as a whole number of at least ``least`` that fits in 64 bits."""
        value = self.value
        if isinstance(value, bool) or not isinstance(value, int):
            self.fail('a whole number')
        if not least <= value <= _LARGEST_INTEGER:
            self.fail(f'a whole number from {least} to {_LARGEST_INTEGER}')
        return value

    def sizes(self) -> tuple[int, ...]:
        """Return the value, a list of whole numbers of at least 0, as a tuple."""
        return tuple(entry.integer(0) for entry in self.items())

    def _mapping(self) -> dict[str, Any]:
        if not isinstance(self.value, dict):
            self.fail('an object')
        return self.value


def content_hash(content: Mapping[str, Any]) -> str:
    """Return a hash by which an edit of a JSON file, or damage to it, is noticed."""
    text = json.dumps(content, sort_keys=True, separators=(',', ':'))
    return hashlib.sha256(text.encode()).hexdigest()


def with_hash(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of a JSON file with its hash in the field ``hash``."""
    return {**content, 'hash': content_hash(content)}


def has_own_hash(content: Mapping[str, Any]) -> bool:
    """Return whether the field ``hash`` is the hash of the other fields."""
    body = {key: value for key, value in content.items() if key != 'hash'}
    return bool(content.get('hash') == content_hash(body))


def check_hash(content: Field) -> None:
    """Raise the error of ``content`` unless its field ``hash`` is the hash of the others."""
    content['hash'].text()
    if not has_own_hash(content.value):
        content['hash'].fail('the hash of the content, which was edited or damaged')
