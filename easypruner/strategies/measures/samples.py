"""Samples: splits a batch into batches of one sample."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from easypruner.base.describe import describe
from easypruner.errors import EasyPrunerError


def samples_of(batch: Any, requested_by: str) -> list[Any]:
    """Split a batch into batches of one sample, with the same structure.

    Args:
        batch: a tensor, a tuple or list of tensors, or a dict of tensors and lists. All have one
            entry for each sample in their first dimension. None stays None.
        requested_by: the name of the component that needs the samples, for messages.

    Raises:
        EasyPrunerError: the batch has another structure, or its parts differ in length.

    >>> import torch
    >>> samples_of({'inputs': torch.tensor([[1.0], [2.0]]), 'names': ['a', 'b']}, 'Fisher')[1]
    {'inputs': tensor([[2.]]), 'names': ['b']}
    """
    if isinstance(batch, Mapping):
        parts = dict(batch)
    elif isinstance(batch, tuple | list):
        # A list of other values may hold samples or their labels; this cannot be decided.
        if not all(part is None or isinstance(part, Tensor) for part in batch):
            raise _unknown_structure(batch, requested_by)
        parts = dict(enumerate(batch))
    else:
        parts = {0: batch}
    sizes = {_size(part, batch, requested_by) for part in parts.values() if part is not None}
    if len(sizes) != 1:
        raise _unknown_structure(batch, requested_by)
    return [_sample(batch, parts, number) for number in range(sizes.pop())]


def _sample(batch: Any, parts: Mapping[Any, Any], number: int) -> Any:
    own = {key: None if p is None else p[number : number + 1] for key, p in parts.items()}
    if isinstance(batch, Mapping):
        return own
    if isinstance(batch, tuple | list):
        values: list[Any] = list(own.values())
        return type(batch)(*values) if hasattr(batch, '_fields') else type(batch)(values)
    return own[0]


def _size(part: Any, batch: Any, requested_by: str) -> int:
    if isinstance(part, list) or (isinstance(part, Tensor) and part.dim()):
        return len(part)
    raise _unknown_structure(batch, requested_by)


def _unknown_structure(batch: Any, requested_by: str) -> EasyPrunerError:
    return EasyPrunerError(
        f'{requested_by} measures single samples, but cannot split a batch that is '
        f'{describe(batch)}; expected a tensor, a tuple of tensors or a dict of tensors and '
        "lists, each with one entry for each sample; per='batch' does not split the batch"
    )
