"""Rehearsal: running a model's forward on stand-ins for its tensors, and leaving it as it was."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from operator import is_
from typing import Any

import torch
from torch import Tensor, nn

_State = tuple[dict[str, Any], dict[str, Any], list[tuple[Any, Any]]]


class Rehearsal:
    """A model whose forward can be run on other tensors than its own.

    What the modules hold is written down once; every run ends with putting it back.

    Attributes:
        model: the network.
        modules: dotted path -> module, each module under its first path.
        parameters: dotted name -> parameter or buffer; tied tensors once, under the first name.
    """

    @property
    def path(self) -> str:
        """Dotted path of the module whose forward is running ('' is the model itself)."""
        return self._path[-1]

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.modules = dict(model.named_modules())
        self.parameters: dict[str, Tensor] = {}
        self._slots: list[tuple[dict[str, Any], str, str]] = []
        self._states: list[_State] = []
        self._find_tensors()
        for module in self.modules.values():
            held = module.__dict__
            contents = [(v, v.copy()) for v in held.values() if type(v) in (dict, list)]
            self._states.append((held, held.copy(), contents))
        # Recurrent layers list their weights a second time.
        self._recurrent = [m for m in self.modules.values() if '_flat_weights_names' in m.__dict__]
        self._path: list[str] = ['']
        self._calls = [
            (module.__dict__, _tracked(module._call_impl, path, self._path))
            for path, module in self.modules.items()
        ]

    def _find_tensors(self) -> None:
        """Find where tensors hang: parameters before buffers, as a state dict has their names."""
        first: dict[int, str] = {}
        for kind in ('_parameters', '_buffers'):
            for path, module in self.modules.items():
                holder = module.__dict__[kind]
                for local, tensor in holder.items():
                    if tensor is None:
                        continue
                    name = first.setdefault(id(tensor), f'{path}.{local}' if path else local)
                    self.parameters.setdefault(name, tensor)
                    self._slots.append((holder, local, name))

    @contextlib.contextmanager
    def with_tensors(self, tensors: Mapping[str, Tensor], training: bool) -> Iterator[None]:
        """Let the modules hold ``tensors`` in place of their own, in the given mode.

        Whatever else changes in the modules' attributes meanwhile is put back as well. Modes are
        set directly: ``train()`` is often overridden and may do more than that.

        Args:
            tensors: under the names of :attr:`parameters`.
            training: training mode instead of evaluation mode.
        """
        try:
            self.swap(tensors)
            for held, call in self._calls:
                # A module calls this instead of its forward; it is what module.compile() sets.
                held['_compiled_call_impl'] = call
            for module in self.modules.values():
                module.__dict__['training'] = training
            yield
        finally:
            self._restore()

    def swap(self, tensors: Mapping[str, Tensor]) -> None:
        """Let the modules hold ``tensors``; only to be used within :meth:`with_tensors`."""
        for holder, local, name in self._slots:
            holder[local] = tensors[name]
        for module in self._recurrent:
            flat = module.__dict__
            flat['_flat_weights'] = [getattr(module, n) for n in flat['_flat_weights_names']]

    def _restore(self) -> None:
        for held, before, contents in self._states:
            if '_compiled_call_impl' not in before:
                held.pop('_compiled_call_impl', None)
            if len(held) != len(before) or not all(map(is_, held.values(), before.values())):
                for name in held.keys() - before.keys():
                    del held[name]
                held.update(before)
            for value, content in contents:
                _restore_content(value, content)


def _restore_content(value: Any, content: Any) -> None:
    if isinstance(value, dict):
        same = len(value) == len(content) and all(map(is_, value.values(), content.values()))
        if not same or list(value) != list(content):
            value.clear()
            value.update(content)
    elif len(value) != len(content) or not all(map(is_, value, content)):
        value[:] = content


def _tracked(call: Callable[..., Any], path: str, stack: list[str]) -> Callable[..., Any]:
    def tracked(*args: Any, **kwargs: Any) -> Any:
        stack.append(path)
        try:
            return call(*args, **kwargs)
        finally:
            stack.pop()

    return tracked


@contextlib.contextmanager
def without_fast_path() -> Iterator[None]:
    """Keep ``nn.MultiheadAttention`` from its fused inference kernel, which hides its parts."""
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)
