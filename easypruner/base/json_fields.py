"""JSON from outside: read field by field, where every error names the file and the field."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from easypruner.errors import EasyPrunerError

_LARGEST_INTEGER = 2**63 - 1


def read_json(
    path: str | os.PathLike[str], error: type[EasyPrunerError] = EasyPrunerError
) -> Field:
    """Read a JSON file.

    Args:
        path: of a file that is there.
        error: what is raised, here and by the fields.

    Raises:
        EasyPrunerError: it cannot be read, or is not JSON.
    """
    file = str(path)
    try:
        return Field(json.loads(Path(path).read_bytes()), file, error=error)
    except (OSError, ValueError, RecursionError) as problem:
        raise error(
            f'{file!r} cannot be read as JSON: {problem}; '
            'the file is damaged or not one that EasyPruner wrote'
        ) from problem


class Field:
    """A value of a parsed JSON file, with the path that leads to it.

    Args:
        value: what the JSON parser returned.
        file: the file's name, for messages.
        path: the path of ``value`` in it; empty for the whole file.
        error: what every method raises where the value is not what it is asked for.

    >>> Field({'rows': [{'macs': 3}]}, 'summary.json')['rows'].items()[0]['macs'].integer()
    3
    """

    def __init__(
        self,
        value: Any,
        file: str,
        path: str = '',
        error: type[EasyPrunerError] = EasyPrunerError,
    ) -> None:
        self.value = value
        self._file = file
        self._path = path
        self._error = error

    def fail(self, expected: str) -> NoReturn:
        """Raise the error that this field is not ``expected``."""
        got = repr(self.value)
        got = got if len(got) <= 60 else got[:57] + '...'
        subject = f'field {self._path!r} of {self._file!r}' if self._path else repr(self._file)
        raise self._error(
            f'{subject} is {got}; expected {expected}. '
            'The file is damaged or not one that EasyPruner wrote'
        )

    def __getitem__(self, key: str) -> Field:
        mapping = self._mapping()
        path = f'{self._path}.{key}' if self._path else key
        if key not in mapping:
            raise self._error(
                f'{self._file!r} has no field {path!r}; '
                'the file is damaged or not one that EasyPruner wrote'
            )
        return Field(mapping[key], self._file, path, self._error)

    def get(self, key: str) -> Field | None:
        """Return the field ``key`` of an object, or None where it is absent or null."""
        return None if self._mapping().get(key) is None else self[key]

    def items(self) -> list[Field]:
        """Return the entries of a list."""
        if not isinstance(self.value, list):
            self.fail('a list')
        return [
            Field(value, self._file, f'{self._path}[{i}]', self._error)
            for i, value in enumerate(self.value)
        ]

    def entries(self) -> Iterator[tuple[str, Field]]:
        """Yield the keys of an object with their fields."""
        for key in self._mapping():
            yield key, self[key]

    def text(self) -> str:
        """Return a string."""
        if not isinstance(self.value, str):
            self.fail('a string')
        return self.value

    def number(self, least: float = -math.inf, most: float = math.inf) -> float:
        """Return a finite number within ``least`` and ``most``, both included."""
        value = self.value
        expected = 'a finite number'
        if least > -math.inf:
            expected += f' of at least {least:g}'
        if most < math.inf:
            expected += f' and at most {most:g}'
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.fail(expected)
        if isinstance(value, int) and abs(value) > _LARGEST_INTEGER:
            self.fail(expected)
        if not math.isfinite(value) or not least <= value <= most:
            self.fail(expected)
        return value

    def integer(self, least: int = -_LARGEST_INTEGER) -> int:
        """Return a whole number of at least ``least`` that fits 64 bits."""
        value = self.value
        if isinstance(value, bool) or not isinstance(value, int):
            self.fail('a whole number')
        if not least <= value <= _LARGEST_INTEGER:
            self.fail(f'a whole number from {least} to {_LARGEST_INTEGER}')
        return value

    def sizes(self) -> tuple[int, ...]:
        """Return a list of whole numbers of at least 0."""
        return tuple(entry.integer(0) for entry in self.items())

    def _mapping(self) -> dict[str, Any]:
        if not isinstance(self.value, dict):
            self.fail('an object')
        return self.value
