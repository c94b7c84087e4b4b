"""Independence: the proof that the code of a network reads nothing that a cut changes.

Then it takes the same path with the same arguments after any cut. If each operation on that path
makes its output of whatever widths its inputs have, the forward pass follows every cut, and no
trial is needed. Where the proof fails, trials decide.
"""

from __future__ import annotations

import builtins
import types
import warnings
from collections.abc import Iterable, Mapping, Sequence, Set
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from easypruner.graph.coupling.rules.pointwise import pointwise
from easypruner.graph.coupling.rules.registration import find_rule
from easypruner.graph.coupling.tally import Width
from easypruner.graph.cutting.handlers import TORCH_HANDLERS, LayerHandler
from easypruner.graph.cutting.handles import find_handler
from easypruner.graph.recording.leaves import is_hooked, leaf_of
from easypruner.graph.recording.tape import Operation, Tape
from easypruner.graph.trial.code_reads import find_reads
from easypruner.graph.trial.widths import Repairs

_FOLLOWING = frozenset({
    'native_batch_norm', 'cudnn_batch_norm', 'mm', 'addmm', 'linear', 't', 'cat',
    'permute', 'transpose', 'clone', 'detach', 'alias', 'mean', 'sum', 'amax', 'amin', 'view',
    '_unsafe_view', 'max_pool2d_with_indices', 'avg_pool2d', '_adaptive_avg_pool2d', '_softmax',
    'adaptive_max_pool2d',
})  # fmt: skip
"""Operations that follow any width, if no number that they are given is a width.

Views do not, but the code may only come to them by ``flatten`` and by layers.
"""
_NUMBERED = frozenset({'convolution', 'native_layer_norm'})
"""Operations that are given widths or numbers of groups. Those of layers are set after a cut."""
_LAYERS = frozenset({
    nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.BatchNorm1d, nn.BatchNorm2d,
    nn.BatchNorm3d, nn.LayerNorm, nn.Linear, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d,
    nn.AdaptiveMaxPool2d, nn.Flatten, nn.Identity, nn.Dropout, nn.Dropout2d, nn.ReLU, nn.ReLU6,
    nn.SiLU, nn.GELU, nn.Hardswish, nn.Hardsigmoid, nn.Sigmoid, nn.Tanh, nn.LeakyReLU, nn.ELU,
    nn.Mish, nn.Softplus, nn.Hardtanh, nn.Softmax,
})  # fmt: skip
"""Layers of torch whose forward passes read no widths but those that their handlers set."""
_CONTAINERS = frozenset({nn.Module, nn.Sequential, nn.ModuleList, nn.ModuleDict})
_SAFE = frozenset({
    'adaptive_avg_pool2d', 'add', 'add_', 'append', 'avg_pool2d', 'cat', 'clone', 'concat',
    'contiguous', 'dim', 'dropout', 'extend', 'flatten', 'float', 'forward', 'functional', 'gelu',
    'get', 'hardsigmoid', 'hardswish', 'insert', 'is_scripting', 'is_tracing', 'items', 'jit',
    'keys', 'leaky_relu', 'linear', 'max_pool2d', 'mean', 'mul', 'mul_', 'ndim', 'nn', 'norm',
    'permute', 'pop', 'relu', 'relu6', 'relu_', 'requires_grad', 'sigmoid', 'silu', 'softmax',
    'softplus', 'squeeze', 'sub', 'sum', 'tanh', 'training', 'transpose', 'unsqueeze', 'values',
    'warn',
})  # fmt: skip
"""Attributes of tensors, of torch and of containers by which no code learns a width."""
_BUILTINS = frozenset({
    'isinstance', 'enumerate', 'zip', 'range', 'reversed', 'list', 'tuple', 'dict', 'sum', 'super',
})  # fmt: skip
_OWN_RULES = pointwise.__module__.rpartition('.')[0]
_NAMESPACES = (torch, nn, functional, warnings)
_OWNERS = (Tensor, torch, nn, functional, torch.jit, nn.Module, str, list, dict, tuple)
_INERT = frozenset({
    '__init__', '__repr__', '__module__', '__doc__', '__annotations__', '__constants__',
    '__qualname__', '__firstlineno__', '__static_attributes__', '__annotate_func__',
    '__annotations_cache__', '__parameters__', '__orig_bases__', '__setstate__', '__getstate__',
})  # fmt: skip
"""Names of a class that no forward pass uses."""
_REPLACEABLE = frozenset({'forward', 'extra_repr'})
_CONSTANTS = frozenset({bool, int, float, str, type(None)})


def is_independent(
    modules: Mapping[str, nn.Module],
    tape: Tape,
    handlers: Sequence[LayerHandler],
    widths: Iterable[Width],
    repairs: Repairs,
) -> bool:
    """Return whether a forward pass is proved to follow every cut.

    Args:
        modules: dotted path -> module of the model.
        tape: the tape of the pass.
        handlers: set the modules' own numbers after a cut.
        widths: the numbers of modules that rules have noted as widths.
        repairs: the repairs of these.
    """
    return (
        not tape.backend.has_values
        and not tape.backend.guesses
        and _is_plain(tape.example_inputs)
        and all(_is_of_layer(w.module, modules) and w.key in repairs for w in widths)
        and all(_follows(operation, modules) for operation in tape.operations)
        and _Proof(modules, [own for own in handlers if own not in TORCH_HANDLERS]).holds()
    )


def _is_plain(inputs: Any) -> bool:
    """Return whether inputs are tensors and constants."""
    if isinstance(inputs, Mapping):
        return all(map(_is_plain, inputs.values()))
    if type(inputs) in (tuple, list):
        return all(map(_is_plain, inputs))
    return isinstance(inputs, Tensor) or type(inputs) in _CONSTANTS


def _is_of_layer(path: str, modules: Mapping[str, nn.Module]) -> bool:
    return type(modules[path]) in _LAYERS


def _follows(operation: Operation, modules: Mapping[str, nn.Module]) -> bool:
    """Return whether an operation makes its outputs of whatever widths its inputs have."""
    name = operation.name
    if name in _NUMBERED:
        return _is_of_layer(operation.module, modules)
    rule = find_rule(operation)
    # A rule of the user may be wrong, which a trial shows.
    return rule is pointwise or (name in _FOLLOWING and rule.__module__.startswith(_OWN_RULES))


class _Proof:
    """The proof for the modules of a network.

    Args:
        modules: dotted path -> module.
        handlers: handlers that are not those of torch's own layers. They may change any number.
    """

    def __init__(self, modules: Mapping[str, nn.Module], handlers: Sequence[LayerHandler]) -> None:
        self._modules = list(modules.values())
        self._handlers = handlers
        self._known = {id(module) for module in self._modules}
        self._types = {type(module): module for module in self._modules}
        self._own_classes = {
            cls: None for kind in self._types for cls in kind.__mro__ if not _is_base(cls)
        }
        self._attributes: set[str] = set()
        self._functions: set[types.FunctionType] = set()

    def holds(self) -> bool:
        """Return whether the code of the modules reads nothing that a cut changes."""
        if any(is_hooked(vars(module)) or 'forward' in vars(module) for module in self._modules):
            return False
        if not all(self._is_safe_type(kind, module) for kind, module in self._types.items()):
            return False
        checked: set[str] = set()
        # Safe functions read more attributes. It ends, because code has finitely many names.
        while names := self._attributes - checked:
            checked |= names
            if not all(map(self._is_safe_name, names)):
                return False
            if not all(self._has_safe_values(module, names) for module in self._modules):
                return False
        return True

    def _is_safe_type(self, kind: type[nn.Module], module: nn.Module) -> bool:
        """Return whether the forward pass of a type reads nothing unsafe, if its names are safe."""
        if kind in _LAYERS or kind in _CONTAINERS or leaf_of(kind) is not None:
            return True
        if find_handler(module, self._handlers) is not None:
            return False
        base: Any = next(c for c in kind.__mro__ if c.__module__.startswith('torch.'))
        if base not in _LAYERS and base not in _CONTAINERS:
            return False
        own = {name for cls in kind.__mro__ if not _is_base(cls) for name in vars(cls)}
        special = {name for name in own if name.startswith('__')} - _INERT
        # The forward pass of a layer calls other methods of it.
        replaced = {name for name in own - _INERT - _REPLACEABLE if hasattr(base, name)}
        if special or (base in _LAYERS and replaced):
            return False
        cls: Any = kind
        return cls.forward is base.forward or self._is_safe_function(cls.forward)

    def _is_safe_function(self, function: Any) -> bool:
        """Return whether a function reads safe globals; note the attributes that it reads."""
        if type(function) is not types.FunctionType:
            return False
        if function in self._functions:
            return True
        self._functions.add(function)
        found = find_reads(function.__code__)
        defaults = (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values())
        if found is None or not all(type(value) in _CONSTANTS for value in defaults):
            return False
        self._attributes |= found.attributes
        return all(self._is_safe_global(function, name) for name in found.names)

    def _is_safe_global(self, function: types.FunctionType, name: str) -> bool:
        if name not in function.__globals__:
            return name in _BUILTINS or _is_inert_class(getattr(builtins, name, None))
        value = function.__globals__[name]
        known = any(value is namespace for namespace in _NAMESPACES)
        return known or _is_inert_class(value) or self._is_safe_value(value)

    def _is_safe_name(self, name: str) -> bool:
        """Return whether an attribute is safe, whatever object of torch or of Python has it."""
        if name.startswith('__') or (name not in _SAFE and _is_known_elsewhere(name)):
            return False
        values = [vars(cls)[name] for cls in self._own_classes if name in vars(cls)]
        found = name in _SAFE or bool(values) or any(hasattr(m, name) for m in self._modules)
        functions = [value.fget if isinstance(value, property) else value for value in values]
        return found and all(map(self._is_safe_value, functions))

    def _has_safe_values(self, module: nn.Module, names: Set[str]) -> bool:
        """Return whether the attributes of a module that code may read are no widths."""
        own = vars(module)
        read = [own[name] for name in names if name in own]
        if type(module) in _LAYERS:  # a cut may set its numbers
            return all(type(value) in (bool, float, str, type(None)) for value in read)
        return all(map(self._is_safe_value, read))

    def _is_safe_value(self, value: Any) -> bool:
        """Return whether a value is a constant, a known module or safe function, or has these."""
        if type(value) in _CONSTANTS or type(value) in (Tensor, nn.Parameter):
            return True
        if isinstance(value, nn.Module):
            return id(value) in self._known
        if type(value) in (list, tuple):
            return all(map(self._is_safe_value, value))
        if type(value) is dict:
            return all(map(self._is_safe_value, value.values()))
        name = getattr(value, '__name__', '')
        if name in _SAFE and any(getattr(owner, name, None) is value for owner in _NAMESPACES):
            return True
        return self._is_safe_function(value)


def _is_base(cls: type) -> bool:
    return cls is object or cls.__module__.startswith('torch.')


def _is_inert_class(value: Any) -> bool:
    """Return whether a value is a class of tensors, errors or named tuples."""
    if not isinstance(value, type):
        return False
    named = issubclass(value, tuple) and hasattr(value, '_fields')
    return value is Tensor or named or issubclass(value, BaseException)


@cache
def _is_known_elsewhere(name: str) -> bool:
    """Return whether tensors, torch or containers of Python have an attribute."""
    return any(hasattr(owner, name) for owner in _OWNERS)
