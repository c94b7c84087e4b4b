"""The context of strategies: missing parts are reported, batches are in order, progress shows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pytest

from easypruner import Context
from easypruner.errors import ConfigError, EasyPrunerError


def test_the_first_batches_of_a_pass() -> None:
    context = Context(batches=lambda: range(5))
    assert list(context.some_batches(3, 'Me')) == [0, 1, 2]
    assert list(context.some_batches(9, 'Me')) == [0, 1, 2, 3, 4]


def test_a_stream_is_read_only_as_far_as_requested() -> None:
    read = []

    def stream() -> Iterator[int]:
        for number in range(10):
            read.append(number)
            yield number

    list(Context(batches=stream).some_batches(2, 'Me'))
    assert read == [0, 1]


def test_an_empty_data_set_is_an_error_that_names_the_requester() -> None:
    with pytest.raises(EasyPrunerError, match=r'Me needs .* the data set is empty'):
        list(Context(batches=list).some_batches(2, 'Me'))


@pytest.mark.parametrize('part', ['batches', 'loss', 'evaluate', 'forward', 'folder'])
def test_an_absent_part_is_reported(part: str) -> None:
    with pytest.raises(ConfigError, match=rf'Me needs .* give {part}='):
        Context().needed(part, 'Me')
    with pytest.raises(ConfigError, match='Me needs batches'):
        Context().some_batches(1, 'Me')


def test_progress_sees_every_batch() -> None:
    seen: list[object] = []

    def track(items: Iterable[object], total: int) -> Iterator[object]:
        seen.append(total)
        for item in items:
            yield item
            seen.append(item)

    list(Context(batches=lambda: 'abc', track=track).some_batches(2, 'Me'))
    assert seen == [2, 'a', 'b']
