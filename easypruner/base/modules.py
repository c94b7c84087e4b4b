"""Helpers for modules: evaluation mode, deep copies, and removing wrappers."""

from __future__ import annotations

import contextlib
import copy
import dis
import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from easypruner.base.closures import rebind_functions
from easypruner.base.nested import tensors_in

_Model = TypeVar('_Model', bound=nn.Module)

_WRAPPERS = {
    'torch._dynamo.eval_frame.OptimizedModule': '_orig_mod',
    'torch.nn.parallel.data_parallel.DataParallel': 'module',
    'torch.nn.parallel.distributed.DistributedDataParallel': 'module',
    'ultralytics.engine.model.Model': 'model',
}
"""Class of a wrapper -> the name under which it has the network. Classes are named instead of
imported, because a wrapper may be of a package that is not installed."""


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put every module in evaluation mode for a block, then restore each module's mode.

    The flags are set directly, because a model may override ``eval()`` to do more. Modules that
    cannot do without it stay in training mode.
    """
    before = [(module, module.training) for module in model.modules()]
    for module, _ in before:
        module.training = needs_eval(module)
    try:
        yield
    finally:
        for module, was in before:
            module.training = was


@contextlib.contextmanager
def restoring_buffers(*models: nn.Module) -> Iterator[None]:
    """Restore the values of all buffers after a block, which a forward pass may change.

    A network may count its passes in evaluation mode, for example.
    """
    before = [
        (module, name, buffer, buffer.detach().clone())
        for model in models
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None and buffer.layout == torch.strided
    ]
    try:
        yield
    finally:
        for module, name, buffer, value in before:
            module._buffers[name] = buffer
            # A buffer that overlaps itself, such as an expanded one, cannot be written.
            if not torch.equal(buffer, value):
                with torch.no_grad():
                    buffer.copy_(value)


def needs_eval(module: nn.Module) -> bool:
    """Return whether evaluation needs an attribute that the module's own ``train(False)`` sets.

    The attentions of LeViT, for example, gather their biases there, and gather them in each forward
    pass in training mode. Setting the flag to False is not enough then.
    """
    if not module.training or type(module).train is nn.Module.train:
        return False
    kind = type(module)
    return any(not hasattr(module, name) for name in _set_by(kind.train) & _read_by(kind.forward))


def keeps_for_mode(module: nn.Module) -> bool:
    """Return whether the module's own ``train()`` sets attributes, such as what was computed."""
    kind = type(module)
    return kind.train is not nn.Module.train and bool(_set_by(kind.train) - {'training'})


def enter_mode_again(module: nn.Module) -> None:
    """Let a module's ``train()`` compute or forget what it keeps; all modes stay as they are.

    The attentions of LeViT, for example, keep biases that were gathered from a parameter.
    """
    before = [(each, each.training) for each in module.modules()]
    try:
        for mode in (not module.training, module.training):
            module.train(mode)
    finally:
        for each, was in before:
            each.training = was


@functools.cache
def _set_by(method: Callable[..., Any]) -> frozenset[str]:
    """Return the names of the attributes that a method sets."""
    code = getattr(inspect.unwrap(method), '__code__', None)
    found = dis.get_instructions(code) if code is not None else ()
    return frozenset(step.argval for step in found if step.opname == 'STORE_ATTR')


def _read_by(method: Callable[..., Any]) -> frozenset[str]:
    """Return the names of globals and attributes in a method."""
    return frozenset(getattr(getattr(inspect.unwrap(method), '__code__', None), 'co_names', ()))


def _deep_copied(model: _Model, memo: dict[int, Any]) -> _Model:
    """Return a deep copy of a network whose functions refer to the copy as well."""
    copied = copy.deepcopy(model, memo)
    rebind_functions(copied.modules(), memo)
    return copied


def copy_of(model: _Model) -> _Model:
    """Return a deep copy of a network.

    ``copy.deepcopy`` fails on tensors that have a gradient history. The older weight norm of torch
    keeps such a tensor after a forward pass. The copy has its values without the history. It also
    fails on sparse matrices in rows or columns.

    Args:
        model: the network; it is not changed.
    """
    memo = {
        id(tensor): tensor.detach().clone()
        for module in model.modules()
        for _, tensor in tensors_in(vars(module))
        if not tensor.is_leaf or tensor.layout not in (torch.strided, torch.sparse_coo)
    }
    return _deep_copied(model, memo)


def sharing(model: _Model, change: Callable[[Tensor], Tensor] = lambda tensor: tensor) -> _Model:
    """Return a copy of a network that shares its parameters and buffers, without their gradients.

    Args:
        model: the network; it is not changed.
        change: takes a tensor and returns that of the copy, such as the same in another memory
            format. The tensors that it returns unchanged need no memory.
    """
    memo: dict[int, Any] = {
        id(tensor): tensor.detach()
        for module in model.modules()
        for _, tensor in tensors_in(vars(module))
    }
    for old in (*model.parameters(), *model.buffers()):
        new = change(old.detach())
        memo[id(old)] = nn.Parameter(new, False) if isinstance(old, nn.Parameter) else new
    return _deep_copied(model, memo)


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the network inside wrappers such as DistributedDataParallel, or ``model`` itself.

    Parameters, groups and records have the names of the inner network, so these names do not
    depend on the wrappers.
    """
    while (name := _wrapped_as(model)) is not None:
        inner = model._modules[name]
        assert inner is not None
        model = inner
    return model


def is_wrapper(model: nn.Module, library: str) -> bool:
    """Return whether a library's class wraps a network."""
    return _wrapped_as(model) is not None and any(
        cls.__module__.startswith(f'{library}.') for cls in type(model).__mro__
    )


def _wrapped_as(model: nn.Module) -> str | None:
    """Return the name of the network in a wrapper; None if the model is not a wrapper."""
    names = (_WRAPPERS.get(f'{cls.__module__}.{cls.__qualname__}') for cls in type(model).__mro__)
    return next((name for name in names if name and model._modules.get(name) is not None), None)
