"""What a forward pass may change besides parameters and buffers, to be restored after a run.

These are the attributes of modules, of their classes and of the objects that they have, plain
tensors, hooks of all modules, random numbers, and caches in the files that define the classes.
"""

from __future__ import annotations

import contextlib
import enum
import random
import types
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from easypruner.graph.recording.code_state import (
    CodeState,
    cached_functions,
    is_foreign,
    restore_cache,
)
from easypruner.graph.recording.snapshot import (
    Snapshot,
    copy_content,
    is_container,
    items_of,
    restore_content,
    same_values,
)

_OF_EVERY_MODULE = frozenset(vars(nn.Module()))
_IMMUTABLE = frozenset({
    bool, int, float, complex, str, bytes, type(None), range, slice, torch.Size, torch.dtype,
    torch.device, nn.Parameter, np.ndarray, type, types.ModuleType, types.FunctionType,
    types.MethodType, types.BuiltinFunctionType,
})  # fmt: skip
"""Types whose values are not looked into."""
_MOST_OBJECTS = 20_000
_MOST_ELEMENTS = 2**22

Restore = Callable[[], object]

_Generator = tuple[Callable[[], Any], Callable[[Any], object]]
"""The functions that read and write the state of a generator of random numbers."""


class ForwardState:
    """The state that the forward pass of a network may change, with its present values.

    Args:
        modules: the modules of the network.
    """

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        listed = list(modules)
        walk = _Walk(listed)
        self._snapshot = Snapshot([*listed, *walk.hidden])
        self._kinds = [(module, type(module)) for module in (*listed, *walk.hidden)]
        self._values = walk.values
        self._code = CodeState(walk.types)
        self._hooks = [
            (value, value.copy())
            for name, value in vars(nn.modules.module).items()
            if name.startswith('_global') and isinstance(value, dict)
        ]
        self._random = [(write, read()) for read, write in _global_generators()]

    def restore(self) -> None:
        """Set everything back to what it was."""
        for module, kind in self._kinds:
            if type(module) is not kind:
                module.__class__ = kind
        self._snapshot.restore()
        for restore in self._values:
            restore()
        self._code.restore()
        for value, content in self._hooks:
            if value or content:
                restore_content(value, content)
        for write, state in self._random:
            write(state)


@contextlib.contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """Run a forward pass in a block, and then restore what it has changed, buffers excepted."""
    state = ForwardState(model.modules())
    try:
        yield
    finally:
        state.restore()


class _Walk:
    """Finds what modules have: other modules, objects and containers, at any depth.

    Attributes:
        hidden: modules that are not registered as parts, such as those in a list.
        values: functions that restore the attributes of objects, containers and tensors.
        types: the types of modules and objects.
    """

    def __init__(self, modules: list[nn.Module]) -> None:
        self.hidden: list[nn.Module] = []
        self.values: list[Restore] = []
        self.types: dict[type, None] = {}
        self._seen = {id(module): module for module in modules}
        self._waiting: deque[Any] = deque()
        for module in modules:
            self._visit_module(module)
        while self._waiting and len(self._seen) < _MOST_OBJECTS:
            self._visit(self._waiting.popleft())

    def _add(self, values: Iterable[Any]) -> None:
        """Visit values later, if they may change and were not visited before."""
        for value in values:
            if type(value) not in _IMMUTABLE and id(value) not in self._seen:
                # The values are kept, so that no other object gets the id of one of them.
                self._seen[id(value)] = value
                self._waiting.append(value)

    def _visit_module(self, module: nn.Module) -> None:
        self.types[type(module)] = None
        self._add(
            value
            for name, value in vars(module).items()
            if type(value) not in _IMMUTABLE and name not in _OF_EVERY_MODULE
        )

    def _visit(self, value: Any) -> None:
        if isinstance(value, nn.Module):
            self.hidden.append(value)
            self._visit_module(value)
            self._add(value._modules.values())
        elif isinstance(value, Tensor):
            self._visit_tensor(value)
        elif is_container(value):
            content = copy_content(value)
            self.values.append(lambda: restore_content(value, content))
            self._add(items_of(value))
        elif isinstance(value, tuple):
            self._add(value)
        else:
            self.values += map(restore_cache, cached_functions([value]))
            self._visit_object(value)

    def _visit_tensor(self, tensor: Tensor) -> None:
        """Keep the values of a tensor that is neither parameter nor buffer, if it is small."""
        if tensor.is_meta or tensor.is_inference() or tensor.numel() > _MOST_ELEMENTS:
            return
        version, values = tensor._version, tensor.detach().clone()

        def restore() -> None:
            if tensor._version != version:
                with torch.no_grad():
                    tensor.detach().copy_(values)

        self.values.append(restore)

    def _visit_object(self, value: Any) -> None:
        found = _find_generator(value)
        if found is not None:
            read, write = found
            state = read()
            self.values.append(lambda: write(state))
        elif not is_foreign(type(value)) and not isinstance(value, enum.Enum):
            self.types[type(value)] = None
            attributes = getattr(value, '__dict__', None)
            if isinstance(attributes, dict):
                before = attributes.copy()
                self.values.append(lambda: _restore_attributes(attributes, before))
                self._add(before.values())
            slots = {name: getattr(value, name) for name in _slots_of(value)}
            if slots:
                self.values.append(lambda: _restore_slots(value, slots))
                self._add(slots.values())


def _restore_attributes(attributes: dict[str, Any], before: Mapping[str, Any]) -> None:
    if not same_values(attributes, before):
        attributes.clear()
        attributes.update(before)


def _slots_of(value: Any) -> Iterator[str]:
    """Yield the names of the attributes that an object has in slots."""
    for base in type(value).__mro__:
        for name, entry in vars(base).items():
            if isinstance(entry, types.MemberDescriptorType) and hasattr(value, name):
                yield name


def _restore_slots(value: Any, before: Mapping[str, Any]) -> None:
    for name in [name for name in _slots_of(value) if name not in before]:
        object.__delattr__(value, name)
    for name, content in before.items():
        if getattr(value, name, None) is not content:
            object.__setattr__(value, name, content)


def _global_generators() -> Iterator[_Generator]:
    yield random.getstate, random.setstate
    yield np.random.get_state, np.random.set_state
    yield torch.get_rng_state, torch.set_rng_state
    # To ask for the state of a GPU would start CUDA.
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        yield torch.cuda.get_rng_state_all, torch.cuda.set_rng_state_all


def _find_generator(value: Any) -> _Generator | None:
    """Return the functions that read and write the state of a generator of random numbers."""
    if isinstance(value, torch.Generator):
        return value.get_state, value.set_state
    if isinstance(value, random.Random):
        return value.getstate, value.setstate
    if isinstance(value, np.random.RandomState):
        return value.get_state, value.set_state
    if isinstance(value, np.random.Generator):
        bits = value.bit_generator
        return lambda: bits.state, lambda state: setattr(bits, 'state', state)
    return None
