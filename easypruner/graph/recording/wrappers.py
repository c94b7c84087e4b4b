"""Wrappers: find the network inside DistributedDataParallel, DataParallel or a compiled module."""

from __future__ import annotations

import contextlib
import reprlib
from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from easypruner.base.modules import unwrapped
from easypruner.errors import CutError, TraceError
from easypruner.graph.recording.inventory import Inventory, check_shapes

_SHARDED = ('torch.distributed.fsdp', 'torch.distributed._composable')
"""Packages whose types wrap a module, or become a base of its type, to share it out."""
_WHOLE = (nn.Parameter, torch.Tensor)
_UNSHARDED = (
    'prune the model before fully_shard(), FullyShardedDataParallel or another way of sharding it, '
    'in every process with the same masks, and shard the pruned one'
)


def find_network(model: nn.Module) -> nn.Module:
    """Return the network inside wrappers, which :func:`check_parts` has to check.

    Raises:
        TraceError: ``model`` is not a network, its forward is not Python code, or a wrapper shares
            parameters out over processes.
    """
    check_module(model)
    network = _network_of(model)
    if network is not model:
        _check_unsharded(Inventory(model), TraceError)
    return network


def find_traceable(model: nn.Module) -> nn.Module:
    """Return the network inside wrappers.

    Raises:
        TraceError: ``model`` is not a network, its forward is not Python code, or its parameters
            are sharded over processes.
    """
    network = find_network(model)
    if network is model:
        _check_unsharded(Inventory(model), TraceError)
    return network


def _network_of(model: nn.Module) -> nn.Module:
    if isinstance(model, torch.jit.ScriptModule):
        raise TraceError(
            f'a TorchScript module ({_class_name(model)}) has no Python forward to record; '
            'trace the module from which it was made, and script the pruned one'
        )
    return unwrapped(model)


def check_module(model: object) -> None:
    """Raise TraceError unless ``model`` is a network."""
    if isinstance(model, nn.Module):
        return
    if isinstance(model, type):
        got, advice = f'the class {model.__name__}', f'build it, as in {model.__name__}()'
    elif isinstance(getattr(model, 'model', None), nn.Module):
        got, advice = f'a {type(model).__name__}', 'give its .model'
    elif callable(model):
        name = getattr(model, '__name__', type(model).__name__)
        got, advice = f'the function {name}', 'give the network that it builds or runs'
    else:
        got, advice = f'{reprlib.repr(model)}, a {type(model).__name__}', 'give the network itself'
    raise TraceError(f'the model is {got}; expected a torch.nn.Module: {advice}')


def check_values(model: nn.Module, owner: str) -> None:
    """Raise TraceError if a parameter or buffer has no values: on the meta device, or lazy.

    Args:
        model: the network.
        owner: what needs the values, for the message.
    """
    tensors = Inventory(model).tensors
    check_shapes(tensors)
    for name, tensor in tensors.items():
        if tensor.is_meta:
            raise TraceError(
                f'{owner} needs values, but {name!r} of the {type(model).__name__} is on the meta '
                'device and has none; build the model on a real device and load its weights '
                '(trace, costs, plans and the shapes of a cut need no values)'
            )


@contextlib.contextmanager
def explained_without_values(model: nn.Module, owner: str) -> Iterator[None]:
    """Explain an error in a block by a parameter without values, if there is one.

    Args:
        model: the network.
        owner: what the block runs, for the message.

    Raises:
        TraceError: the block failed, and a parameter or buffer is on the meta device.
    """
    try:
        yield
    except Exception as error:
        try:
            check_values(model, owner)
        except TraceError as explained:
            raise explained from error
        raise


def check_parts(inventory: Inventory) -> None:
    """Check the parts of a network.

    Raises:
        TraceError: the forward of a part is not Python code, its buckets would not follow a cut, or
            parameters are sharded over processes.
    """
    _check_unsharded(inventory, TraceError)
    for kind, path in inventory.kinds.items():
        if issubclass(kind, torch.jit.ScriptModule):
            raise TraceError(
                f'{path or "the model"} is a TorchScript module, which has no Python forward to '
                'record; trace the model with the module from which it was made, and script it '
                'after the cut; if its class is written with torch.jit.script_method, set the '
                'environment variable PYTORCH_JIT=0'
            )
        if issubclass(kind, DistributedDataParallel):
            raise TraceError(
                f'{path} is wrapped in DistributedDataParallel, whose buckets would not follow '
                'a cut; prune the model before its parts are wrapped'
            )


def _check_unsharded(inventory: Inventory, error: type[TraceError | CutError]) -> None:
    """Raise an error if parameters of a network are sharded over processes.

    The types tell it, and not the parameters alone: between a forward pass without gradients and
    the next training step those of FSDP are whole, but a shard of their own takes their place then.
    """
    for kind, path in inventory.kinds.items():
        _check_type(path, kind, error)
    for name, tensor in inventory.tensors.items():
        if type(tensor) not in _WHOLE and type(tensor).__name__ == 'DTensor':
            raise error(f'{name} is sharded over processes (a DTensor); {_UNSHARDED}')


def _check_type(path: str, cls: type[nn.Module], error: type[TraceError | CutError]) -> None:
    for base in cls.__mro__:
        is_fsdp = base.__name__.endswith('FullyShardedDataParallel')
        if is_fsdp or base.__module__.startswith(_SHARDED):
            raise error(
                f'{path or "the model"} is sharded over processes or replicated by hooks: it '
                f'is a {base.__name__} of {base.__module__.partition("._")[0]}, whose shards '
                f'do not follow a cut; {_UNSHARDED}'
            )


def find_cuttable(model: nn.Module) -> Inventory:
    """Return the inventory of the network inside wrappers that still work after a cut.

    Raises:
        CutError: a wrapper would not work.
        TraceError: as for :func:`find_traceable`.
    """
    check_module(model)
    # Its buckets and its hooks on gradients are made for the shapes with which it was built. After
    # a cut they would fail, or leave gradients unsynchronized without an error.
    if any(isinstance(part, DistributedDataParallel) for part in _wrapped(model, '_orig_mod')):
        raise CutError(
            'a DistributedDataParallel does not follow a cut: its buckets have the shapes it '
            'was built with; prune its .module in every process, with the same masks, and '
            'wrap that anew'
        )
    network = _network_of(model)
    inventory = Inventory(network)
    _check_unsharded(inventory if network is model else Inventory(model), CutError)
    return inventory


def find_copy(copy: nn.Module, model: nn.Module) -> nn.Module:
    """Return the network of the class of ``model`` inside a copy, such as an averaged model.

    Raises:
        CutError: there is none, or its parameters are sharded over processes.
    """
    _check_unsharded(Inventory(copy), CutError)
    for part in _wrapped(copy, 'module', '_orig_mod'):
        if type(part) is type(model):
            return part
    raise CutError(
        f'a copy to be cut along is a {_class_name(copy)}; expected a {_class_name(model)}, or a '
        'wrapper such as AveragedModel with one under its .module'
    )


def _wrapped(model: nn.Module, *names: str) -> Iterator[nn.Module]:
    """Yield a module, then the module that it has under one of the names, and so on inwards."""
    part: nn.Module | None = model
    while part is not None:
        yield part
        # The modules of a script are in a mapping that has no get().
        parts = dict(part._modules.items())
        part = next((parts[name] for name in names if parts.get(name) is not None), None)


def _class_name(model: nn.Module) -> str:
    if isinstance(model, torch.jit.ScriptModule):
        return str(getattr(model, 'original_name', type(model).__name__))
    return type(model).__name__
