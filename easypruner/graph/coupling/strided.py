"""Strided views: which dimension of a tensor each dimension of a view of its memory runs along."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from easypruner.graph.coupling.axes import Axis


def followed_dims(
    x: Tensor, size: Sequence[int], stride: Sequence[int], offset: int | None = None
) -> list[int | None]:
    """Return for each dimension of ``x.as_strided(size, stride, offset)`` the one it runs along.

    That is a dimension of ``x`` of the same size and stride, if the other dimensions of the view
    never move along it. None means that there is no such dimension, or that it has one index.

    >>> import torch
    >>> windows = torch.empty(2, 12, 5).as_strided((2, 3, 8, 5), (60, 10, 5, 1))
    >>> followed_dims(torch.empty(2, 12, 5), windows.shape, windows.stride())
    [0, None, None, 2]
    """
    if _is_same(x, size, stride, offset):
        return list(range(x.dim()))
    found: list[int | None] = [None] * len(size)
    if not stays_inside(x, size, stride, offset):
        return found
    moves = [(step, (count - 1) * step) for count, step in zip(size, stride, strict=True)]
    for dim, (own, step) in enumerate(zip(x.shape, x.stride(), strict=True)):
        for position, count in enumerate(size):
            if own == 1 or (count, stride[position]) != (own, step):
                continue
            others = moves[:position] + moves[position + 1 :]
            if sum(most for each, most in others if each % (own * step)) < step:
                found[position] = dim
    return found


def keeps_dims(axes: Sequence[Axis], expected: Sequence[Any], got: Sequence[Any]) -> bool:
    """Return whether a strided view after a cut follows the dimensions that it followed before.

    Its strides may be numbers in the code, which do not change with the width.

    Args:
        axes: the axes of the tensor before the cut. Those that stay are not compared.
        expected: the arguments of ``as_strided`` before the cut.
        got: those after the cut.
    """
    pairs = zip(followed_dims(*expected), followed_dims(*got), got[1], strict=True)
    return all(
        before is None or axes[before].is_constant or size == 1 or before == after
        for before, after, size in pairs
    )


def stays_inside(
    x: Tensor, size: Sequence[int], stride: Sequence[int], offset: int | None = None
) -> bool:
    """Return whether a strided view is the tensor itself, or in its memory that has no gaps."""
    if _is_same(x, size, stride, offset):
        return True
    filled = 1
    for step, count in sorted(zip(x.stride(), x.shape, strict=True)):
        if count != 1 and step != filled:
            return False
        filled *= count
    most = sum((count - 1) * step for count, step in zip(size, stride, strict=True))
    return offset in (None, x.storage_offset()) and most < filled


def _is_same(x: Tensor, size: Sequence[int], stride: Sequence[int], offset: int | None) -> bool:
    """Return whether a strided view has the shape, strides and place of the tensor."""
    steps = (
        [step for count, step in zip(size, strides, strict=True) if count > 1]
        for strides in (stride, x.stride())
    )
    same = list(size) == list(x.shape) and offset in (None, x.storage_offset())
    return same and next(steps) == next(steps)
