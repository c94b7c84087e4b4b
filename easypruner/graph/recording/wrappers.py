"""Wrappers: the network inside DistributedDataParallel, DataParallel or a compiled module."""

from __future__ import annotations

import reprlib

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from easypruner.base.modules import unwrapped
from easypruner.errors import CutError, TraceError
from easypruner.graph.recording.inventory import Inventory


def traceable(model: nn.Module) -> nn.Module:
    """Return the network inside wrappers.

    Raises:
        TraceError: it is no network, or has no Python forward.
    """
    check_module(model)
    if isinstance(model, torch.jit.ScriptModule):
        raise TraceError(
            f'a TorchScript module ({_kind(model)}) has no Python forward to follow; '
            'trace the module that it was made of, and script the pruned one'
        )
    return unwrapped(model)


def check_module(model: object) -> None:
    """Raise TraceError unless ``model`` is a network."""
    if isinstance(model, nn.Module):
        return
    if isinstance(model, type):
        met, advice = f'the class {model.__name__}', f'build it, as in {model.__name__}()'
    elif isinstance(getattr(model, 'model', None), nn.Module):
        met, advice = f'a {type(model).__name__}', 'give its .model'
    elif callable(model):
        name = getattr(model, '__name__', type(model).__name__)
        met, advice = f'the function {name}', 'give the network that it builds or runs'
    else:
        met, advice = f'{reprlib.repr(model)}, a {type(model).__name__}', 'give the network itself'
    raise TraceError(f'the model is {met}; expected a torch.nn.Module: {advice}')


def check_values(model: nn.Module) -> None:
    """Raise TraceError if a parameter or buffer has a shape, but no values."""
    for name, tensor in Inventory(model).tensors.items():
        if tensor.is_meta:
            raise TraceError(
                f'{name} of the {type(model).__name__} is on the meta device and has no values; '
                'build the model on a real device and load its weights (a meta model can only be '
                'traced)'
            )


def check_parts(inventory: Inventory) -> None:
    """Raise what makes a network untraceable.

    Raises:
        TraceError: parts of it have no Python forward, or do not hold their own parameters.
    """
    for path, part in inventory.modules.items():
        if isinstance(part, torch.jit.ScriptModule):
            raise TraceError(
                f'{path or "the model"} is a TorchScript module, which has no Python forward to '
                'follow; trace the model with the module that it was made of, and script it '
                'after the cut'
            )
        if isinstance(part, DistributedDataParallel):
            raise TraceError(
                f'{path} is wrapped in DistributedDataParallel, whose buckets would not follow '
                'a cut; prune the model before its parts are wrapped'
            )
    for name, tensor in inventory.tensors.items():
        if type(tensor).__name__ == 'DTensor':
            raise TraceError(
                f'{name} is sharded over processes (a DTensor); prune the model before '
                'fully_shard() or another way of sharding it'
            )


def cuttable(model: nn.Module) -> nn.Module:
    """Return the network to cut inside wrappers.

    Raises:
        CutError: the wrapper would not survive the cut.
        TraceError: as for :func:`traceable`.
    """
    check_module(model)
    inner: nn.Module | None = model
    while inner is not None:
        # Its buckets and its hooks on gradients are made for the shapes it was built with. What
        # came of it would at best fail, and at worst leave gradients unsynchronized.
        if isinstance(inner, DistributedDataParallel):
            raise CutError(
                'a DistributedDataParallel does not follow a cut: its buckets have the shapes it '
                'was built with; prune its .module in every process, with the same masks, and '
                'wrap that anew'
            )
        inner = _part(inner, '_orig_mod')
    return traceable(model)


def inside(copy: nn.Module, model: nn.Module) -> nn.Module:
    """Return what is of the type of ``model`` in a copy of it, such as an average of its weights.

    Raises:
        CutError: there is nothing of that type.
    """
    inner: nn.Module | None = copy
    while inner is not None:
        if type(inner) is type(model):
            return inner
        inner = _part(inner, 'module') or _part(inner, '_orig_mod')
    raise CutError(
        f'a copy to be cut along is a {_kind(copy)}; expected a {_kind(model)}, or a wrapper such '
        'as AveragedModel with one under its .module'
    )


def _part(model: nn.Module, name: str) -> nn.Module | None:
    parts: dict[str, nn.Module | None] = dict(model._modules.items())
    return parts.get(name)


def _kind(model: nn.Module) -> str:
    if isinstance(model, torch.jit.ScriptModule):
        return str(getattr(model, 'original_name', type(model).__name__))
    return type(model).__name__
