"""Indices that code gives as lists, as in ``x[:, [0, -1]]``: they keep their values on meta."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

_usual = Tensor.__getitem__


@contextlib.contextmanager
def list_indices_kept() -> Iterator[None]:
    """Index tensors on the meta device by real tensors where code gives a list.

    Torch would make a tensor on the device of the one that is indexed, without a trace of its
    values. Code that asks for a value behind that, such as whether a text is padded, would need
    other stand-ins, with which a trace takes several times as long.
    """
    if '__getitem__' in vars(Tensor):  # another trace is running
        yield
        return
    Tensor.__getitem__ = _index  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        del Tensor.__getitem__


def _index(x: Tensor, key: Any) -> Any:
    if x.is_meta:
        key = tuple(map(_as_tensor, key)) if type(key) is tuple else _as_tensor(key)
    return _usual(x, key)


def _as_tensor(index: Any) -> Any:
    """Return a list of whole numbers, or of true and false, as a real tensor."""
    if type(index) is list and index and all(isinstance(each, int) for each in index):
        with _disable_current_modes():
            return torch.tensor(index, device='cpu')
    return index
