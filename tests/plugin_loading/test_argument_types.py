"""Arguments of components are compared with the type hints of their constructors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pytest

from easypruner.plugins.argument_types import type_faults


class Example:
    def __init__(
        self,
        count: int = 1,
        share: float | None = None,
        names: Sequence[str] = (),
        options: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
        mode: Literal['a', 'b'] = 'a',
        anything: Any = None,
        unusual: int = None,  # type: ignore[assignment]  # noqa: RUF013 - allowed for values
    ) -> None:
        pass


@pytest.mark.parametrize(
    'arguments',
    [
        dict(count=3, share=1, names=['a'], options={}, mode='b', anything=5),
        dict(count=np.int64(3), share=np.float32(0.5), names=('a',), options=[{}]),
        dict(share=None, options=None, unusual=None),
    ],
)
def test_what_the_hints_allow(arguments: dict[str, Any]) -> None:
    assert not list(type_faults(Example, arguments))


@pytest.mark.parametrize(
    ('arguments', 'expected'),
    [
        (dict(count='3'), "count='3' of Example; expected a whole number"),
        (dict(count=True), 'count=True of Example; expected a whole number'),
        (dict(share='x'), "share='x' of Example; expected a number or None"),
        (dict(names='abc'), "names='abc' of Example; expected a list"),
        (dict(options=5), 'options=5 of Example; expected a dict or a list or None'),
        (dict(mode=0), 'mode=0 of Example; expected a string'),
    ],
)
def test_what_they_do_not_allow(arguments: dict[str, Any], expected: str) -> None:
    assert list(type_faults(Example, arguments)) == [expected]
