"""Plain code: what can be proved about the code of a network without running it.

Code that reads no shape of a tensor and no number of a layer learns no width. It takes the same
path with the same arguments after any cut. Where the proof fails, the code has to be tried.
"""

from __future__ import annotations

import builtins
import types
import warnings
from collections.abc import Iterable, Set
from functools import cache, cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from easypruner.graph.recording.code_reads import find_reads
from easypruner.graph.recording.comparisons import Comparisons, find_comparisons
from easypruner.graph.recording.leaves import has_global_hooks, has_hooks, leaf_of

LAYERS = frozenset({
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
_NAMESPACES = (torch, nn, functional, warnings)
_OWNERS = (Tensor, torch, nn, functional, torch.jit, nn.Module, str, list, dict, tuple)
_INERT = frozenset({
    '__init__', '__repr__', '__module__', '__doc__', '__annotations__', '__constants__',
    '__qualname__', '__firstlineno__', '__static_attributes__', '__annotate_func__',
    '__annotations_cache__', '__parameters__', '__orig_bases__', '__setstate__', '__getstate__',
})  # fmt: skip
"""Names of a class that no forward pass uses."""
_REPLACEABLE = frozenset({'forward', 'extra_repr'})
CONSTANTS = frozenset({bool, int, float, str, type(None)})
_NO_NUMBERS = CONSTANTS - {int}
_REGISTERED = ('_modules', '_parameters', '_buffers')
_CHANGING = frozenset({'append', 'extend', 'insert', 'pop'})


class PlainCode:
    """The proofs for the code of a network.

    Args:
        modules: all modules of the network.

    Attributes:
        types: the types of modules, with a module of each.
    """

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        self._modules = list(modules)
        self._known = set(map(id, self._modules))
        self.types = {type(module): module for module in self._modules}
        self._own_classes = {
            cls: None for kind in self.types for cls in kind.__mro__ if not _is_torch(cls)
        }
        self._attributes: set[str] = set()
        self._functions: set[types.FunctionType] = set()
        self._reads_containers = False

    @cached_property
    def learns_no_width(self) -> bool:
        """Whether the code of the modules reads nothing that a cut changes."""
        if has_global_hooks() or any(map(_has_own_call, map(vars, self._modules))):
            return False
        if not all(map(self._is_safe_type, self.types)):
            return False
        checked = {'training'}
        # Safe functions read more attributes. It ends, because code has finitely many names.
        while names := self._attributes - checked:
            checked |= names
            if not all(map(self._is_safe_name, names)):
                return False
            if self._attributes <= checked and not self._has_safe_values(checked - {'training'}):
                return False
        return True

    @cached_property
    def comparisons(self) -> Comparisons:
        """What code may compare with widths, so that the path that it takes may depend on them."""
        if self.learns_no_width:
            return Comparisons(anything=False, numbers=False)
        return find_comparisons(self._modules)

    @cached_property
    def changes_nothing(self) -> bool:
        """Whether calls of the network change no attributes, and no containers or plain tensors."""
        return (
            self.learns_no_width
            and not self._reads_containers
            and self._attributes.isdisjoint(_CHANGING)
            and not any(_writes_items(function) for function in self._functions)
            and not any('_compiled_call_impl' in vars(module) for module in self._modules)
        )

    def _is_safe_type(self, kind: type[nn.Module]) -> bool:
        """Return whether the forward pass of a type reads nothing unsafe, if its names are safe."""
        base: Any = _base_of(kind)
        if base not in LAYERS and base not in _CONTAINERS:
            return False
        if kind is base or leaf_of(kind) is not None:
            return True
        own = {name for cls in kind.__mro__ if not _is_torch(cls) for name in vars(cls)}
        special = {name for name in own if name.startswith('__')} - _INERT
        # The forward pass of a layer calls other methods of it.
        replaced = {name for name in own - _INERT - _REPLACEABLE if hasattr(base, name)}
        if special or (base in LAYERS and replaced):
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
        if found is None or not all(type(value) in CONSTANTS for value in defaults):
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
        functions = [value.fget if isinstance(value, property) else value for value in values]
        found = bool(values) or name in _SAFE or self._is_of_module(name)
        return found and all(map(self._is_safe_value, functions))

    def _is_of_module(self, name: str) -> bool:
        """Return whether a module has an attribute, part, parameter or buffer of a name."""
        return any(
            name in own or any(name in own[kind] for kind in _REGISTERED)
            for own in map(vars, self._modules)
        )

    def _has_safe_values(self, names: Set[str]) -> bool:
        """Return whether the attributes of modules that code may read are no widths."""
        layers = {kind for kind in self.types if _base_of(kind) in LAYERS}
        for module in self._modules:
            own = vars(module)
            if own.keys().isdisjoint(names):
                continue
            read = [own[name] for name in names if name in own]
            if type(module) in layers:  # a cut may set its numbers
                if not all(type(value) in _NO_NUMBERS for value in read):
                    return False
            elif not all(map(self._is_safe_value, read)):
                return False
        return True

    def _is_safe_value(self, value: Any) -> bool:
        """Return whether a value is a constant, a known module or safe function, or has these."""
        if type(value) in CONSTANTS:
            return True
        if isinstance(value, nn.Module):
            return id(value) in self._known
        if type(value) is tuple:
            return all(map(self._is_safe_value, value))
        if type(value) in (list, dict, Tensor, nn.Parameter):
            self._reads_containers = True
            items = value.values() if type(value) is dict else value
            return isinstance(value, Tensor) or all(map(self._is_safe_value, items))
        name = getattr(value, '__name__', '')
        if name in _SAFE and any(getattr(owner, name, None) is value for owner in _NAMESPACES):
            return True
        return self._is_safe_function(value)


def _is_torch(cls: type) -> bool:
    return cls is object or cls.__module__.startswith('torch.')


def _base_of(kind: type[nn.Module]) -> type:
    """Return the type of torch from which a type is derived, or which it is."""
    return next(filter(_is_torch, kind.__mro__))


def _has_own_call(own: dict[str, Any]) -> bool:
    """Return whether a module with these attributes runs more, or other code, than its type."""
    return 'forward' in own or has_hooks(own)


def _writes_items(function: types.FunctionType) -> bool:
    found = find_reads(function.__code__)
    return found is None or found.writes_items


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
