"""Modules: their evaluation mode, and copies of them."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from torch import Tensor, nn

_Model = TypeVar('_Model', bound=nn.Module)


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put every module in evaluation mode, and back afterwards.

    Flags are set directly: ``eval()`` may be overridden and do more than that.
    """
    before = [(module, module.training) for module in model.modules()]
    for module, _ in before:
        module.training = False
    try:
        yield
    finally:
        for module, was in before:
            module.training = was


def copy_of(model: _Model) -> _Model:
    """Return a deep copy of a network.

    A tensor that was computed with gradients cannot be copied with its history. Where a module
    holds one, as under the older weight norm after a forward pass, the copy holds its values.

    Args:
        model: is left as it was.
    """
    memo = {
        id(tensor): tensor.detach().clone()
        for module in model.modules()
        for tensor in _tensors(vars(module))
        if not tensor.is_leaf
    }
    return copy.deepcopy(model, memo)


def _tensors(value: Any) -> Iterator[Tensor]:
    """Yield the tensors in a value, those in lists, tuples and dicts included."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from _tensors(part)
