"""Modules: their evaluation mode, copies of them, and what is inside wrappers."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import TypeVar

from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from easypruner.base.nested import tensors_in

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
        for _, tensor in tensors_in(vars(module))
        if not tensor.is_leaf
    }
    return copy.deepcopy(model, memo)


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the network inside wrappers, or ``model`` itself.

    Names of parameters, groups and records are those of the inner network: they do not depend on
    how it is run.
    """
    while True:
        # What torch.compile returns has the network under this name.
        inner: nn.Module | None = model._modules.get('_orig_mod')
        if isinstance(model, (DistributedDataParallel, DataParallel)):
            inner = model.module
        if inner is None:
            return model
        model = inner
