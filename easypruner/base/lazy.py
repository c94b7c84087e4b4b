"""A dict that is made when it is read for the first time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Any, Generic, TypeVar

Key = TypeVar('Key')
Value = TypeVar('Value')


class LazyDict(Mapping[Key, Value], Generic[Key, Value]):
    """A mapping whose entries a function returns when somebody reads them. It is pickled as a dict.

    Args:
        make: returns the entries. It is called once.

    >>> squares = LazyDict(lambda: {n: n * n for n in range(4)})
    >>> squares[3], len(squares), squares == {0: 0, 1: 1, 2: 4, 3: 9}
    (9, 4, True)
    """

    def __init__(self, make: Callable[[], dict[Key, Value]]) -> None:
        self._make: Callable[[], dict[Key, Value]] | None = make

    @cached_property
    def _made(self) -> dict[Key, Value]:
        assert self._make is not None
        made, self._make = self._make(), None  # what the function refers to may be large
        return made

    def __getitem__(self, key: Key) -> Value:
        return self._made[key]

    def __iter__(self) -> Iterator[Key]:
        return iter(self._made)

    def __len__(self) -> int:
        return len(self._made)

    def __repr__(self) -> str:
        return repr(self._made)

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (self._made,)
