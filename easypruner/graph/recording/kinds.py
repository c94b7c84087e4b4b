"""Kinds of operations: what is asked about an operation each time it runs, found out once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from easypruner.graph.recording.composites import is_composite

aten = torch.ops.aten

_ASKING = frozenset({
    aten._local_scalar_dense.default, aten.nonzero.default, aten.masked_select.default,
    aten.equal.default, aten._unique2.default, aten.unique_dim.default,
    aten.unique_consecutive.default, aten.bincount.default, aten.repeat_interleave.Tensor,
})  # fmt: skip
NMS = 'torchvision::nms'
_BOOKKEEPING = (
    'detach', 'alias', 'lift_fresh', 'lift_fresh_copy', 'prim::device', 'to',
    '_efficientzerotensor',
)  # fmt: skip
_COPIES = ('clone', 'positive')
_REDUCING = frozenset({
    'sum', 'nansum', 'mean', 'prod', 'amax', 'amin', 'aminmax', 'max', 'min', 'median', 'logsumexp',
    'var', 'var_mean', 'std', 'std_mean', 'norm', 'linalg_vector_norm', 'argmax', 'argmin', 'any',
    'all', 'count_nonzero', 'cumsum', 'cumprod',
})  # fmt: skip
"""Operations that compute numbers along a dimension. Only newer versions of torch tag them."""

_Answer = TypeVar('_Answer')


def once_each(ask: Callable[[Any], _Answer]) -> Callable[[Any], _Answer]:
    """Return a function of operations that asks about each of them once, found by identity.

    Torch computes the hash of an operation in Python, so that a dict of operations is slow.
    """
    known: dict[int, tuple[Any, _Answer]] = {}

    def answer(func: Any) -> _Answer:
        found = known.get(id(func))
        if found is None:  # the operation is kept, so that no other one gets its id
            found = known[id(func)] = func, ask(func)
        return found[1]

    return answer


@dataclass(frozen=True, slots=True)
class Kind:
    """What is known about an operation, whatever its arguments.

    Attributes:
        name: its name, without ``aten::``.
        is_composite: whether it takes functions, and runs others by them.
        asks_values: whether its result, or the shape of that, depends on values.
        changes_shape: whether it changes the shape of a tensor in place.
        is_bookkeeping: whether it is of autograd or of constants, so that one run may have it and
            another may not.
        computes: whether it computes numbers entry by entry, or of all entries along a dimension.
    """

    name: str
    is_composite: bool
    asks_values: bool
    changes_shape: bool
    is_bookkeeping: bool
    computes: bool = False


@once_each
def kind_of(func: Any) -> Kind:
    """Return the kind of an operation."""
    if is_composite(func):
        return Kind(func.name(), True, False, False, False)
    name = str(func._schema.name).removeprefix('aten::')
    return Kind(
        name=name,
        is_composite=False,
        asks_values=func in _ASKING or func.name() == NMS,
        changes_shape=torch.Tag.inplace_view in func.tags,
        is_bookkeeping=name in _BOOKKEEPING,
        computes=name not in _COPIES and (name in _REDUCING or torch.Tag.pointwise in func.tags),
    )
