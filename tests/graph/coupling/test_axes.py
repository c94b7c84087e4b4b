"""Axes: what is constant stays constant, whatever is done to it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from easypruner.graph.coupling.axes import Axis, Reasons

OPERATIONS = {
    'sliced': lambda axis: axis[1:3],
    'whole': lambda axis: axis[:],
    'reversed': lambda axis: axis[::-1],
    'tiled': lambda axis: axis.tiled(2),
    'repeated': lambda axis: axis.repeated(3),
    'transposed': lambda axis: axis.transposed(2),
    'joined': lambda axis: Axis.joined([axis, axis[:1]]),
}


@pytest.mark.parametrize('change', OPERATIONS.values(), ids=OPERATIONS)
def test_an_axis_stays_constant_or_free(change: Callable[[Axis], Axis]) -> None:
    constant, free = Reasons().make_axis(4, 'a reason'), Axis(np.arange(4))
    assert change(constant).is_constant
    assert change(constant).reason == constant.reason
    assert set(change(constant).ids) == {constant.reason}
    assert not change(free).is_constant
    assert change(constant).size == change(free).size


def test_a_constant_axis_has_other_sizes_for_the_same_reason() -> None:
    reasons = Reasons()
    first, second = reasons.make_axis(4, 'first'), reasons.make_axis(0, 'second')
    assert first.resized(7).ids.tolist() == [first.reason] * 7
    assert second.resized(2).ids.tolist() == [second.reason] * 2
    assert reasons.texts == ['first', 'second']
    assert reasons.make_axis(4, 'first') is first


def test_joined_axes_keep_the_ids_of_all() -> None:
    joined = Axis.joined([Axis(np.arange(2)), Reasons().make_axis(1, 'a reason')])
    assert joined.ids.tolist() == [0, 1, -1]
    assert joined.nodes.tolist() == [0, 1]
    assert not joined.is_constant
