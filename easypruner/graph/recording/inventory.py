"""The inventory of a model: its modules and tensors by name, and stand-ins for the tensors."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from easypruner.base.modules import needs_eval
from easypruner.base.settings import changed_setting
from easypruner.errors import TraceError
from easypruner.graph.recording.config_numbers import set_attribute
from easypruner.graph.recording.forward_state import ForwardState
from easypruner.graph.recording.leaves import leaf_of, make_call
from easypruner.graph.recording.plain_code import PlainCode
from easypruner.graph.recording.snapshot import restore_content

_WITH_SHAPE = (Tensor, nn.Parameter)


Slot = tuple[dict[str, Any], str, str, str]
"""An entry of a module that has a parameter or buffer: the module's dict of parameters, or of
buffers; the path of the module; the name of the entry; and the first of the dotted names that the
tensor has in the model."""


class Inventory:
    """The modules and tensors of a model. A tied tensor has several slots and one name.

    Tensors in plain attributes count as buffers, such as a table of positions that a module has
    made once.

    Attributes:
        model: the network.
        modules: dotted path -> module. A module that is registered twice has its first path.
        tensors: dotted name -> parameter or buffer, parameters first.
        plain: the names of those in plain attributes.
        slots: the entries of all modules.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.modules = modules_of(model)
        self.tensors: dict[str, Tensor] = {}
        self.plain: set[str] = set()
        self.slots: list[Slot] = []
        tensors, slots = self.tensors, self.slots
        first: dict[int, str] = {}
        for kind in ('_parameters', '_buffers'):
            for path, module in self.modules.items():
                entries = module.__dict__.get(kind)
                if entries is None:  # a module that torch.jit has traced
                    entries = getattr(module, kind)
                if not entries:
                    continue
                start = f'{path}.' if path else ''
                for local, tensor in entries.items():
                    if tensor is None:
                        continue
                    name = first.get(id(tensor))
                    if name is None:
                        name = first[id(tensor)] = start + local
                        tensors.setdefault(name, tensor)
                    slots.append((entries, path, local, name))
        self._add_plain(first)

    def _add_plain(self, first: dict[int, str]) -> None:
        """Add the tensors in plain attributes that no other tensor shares memory with."""
        found = [
            (path, module, local, value)
            for path, module in self.modules.items()
            for local, value in module.__dict__.items()
            if type(value) is Tensor and _is_plain_buffer(module, value)
        ]
        if not found:
            return
        known = {_memory_of(tensor) for tensor in self.tensors.values()}
        for path, module, local, value in found:
            name = first.get(id(value))
            if name is None and _memory_of(value) not in known:
                name = first[id(value)] = dotted_name(path, local)
                known.add(_memory_of(value))
                self.plain.add(name)
                self.tensors[name] = value
            if name is not None:
                self.slots.append((module.__dict__, path, local, name))

    @cached_property
    def kinds(self) -> dict[type[nn.Module], str]:
        """Type -> the path of the first module of this type."""
        kinds: dict[type[nn.Module], str] = {}
        for path, module in self.modules.items():
            kinds.setdefault(type(module), path)
        return kinds

    def by_layer(self, shapes: Mapping[str, torch.Size]) -> dict[str, dict[str, torch.Size]]:
        """Return path of a module -> local name -> shape, for all slots of the named tensors."""
        layers: dict[str, dict[str, torch.Size]] = {}
        for _, path, local, name in self.slots:
            if name in shapes:
                layers.setdefault(path, {})[local] = shapes[name]
        return layers


def check_shapes(tensors: Mapping[str, Tensor]) -> None:
    """Raise TraceError if a parameter or buffer has no shape yet."""
    for name, tensor in tensors.items():
        if type(tensor) not in _WITH_SHAPE and nn.parameter.is_lazy(tensor):
            raise TraceError(
                f'parameter {name!r} has no shape yet (a lazy module); '
                'run the model once on real data before tracing it'
            )


def modules_of(model: nn.Module) -> dict[str, nn.Module]:
    """Return dotted path -> module, as ``named_modules`` does in a fraction of the time."""
    found = {'': model}
    _add_parts(model, '', found, {id(model)})
    return found


def _add_parts(module: nn.Module, start: str, found: dict[str, nn.Module], seen: set[int]) -> None:
    """Add the parts of a module to those found, each followed by its own parts."""
    for name, part in module._modules.items():
        if part is not None and id(part) not in seen:
            seen.add(id(part))
            path = start + name
            found[path] = part
            if part._modules:
                _add_parts(part, f'{path}.', found, seen)


def _is_plain_buffer(module: nn.Module, value: Tensor) -> bool:
    """Return whether a tensor in an attribute is a constant, and not made of weights by a hook."""
    numbers = value.is_floating_point() or value.is_complex()
    made = value.requires_grad or value.is_inference() or module._forward_pre_hooks
    return numbers and value.numel() > 1 and value.layout is torch.strided and not made


def _memory_of(tensor: Tensor) -> int:
    """Return what tensors that share memory have in common."""
    return tensor.untyped_storage()._cdata if tensor.layout is torch.strided else id(tensor)


def is_parameter(tensor: Tensor) -> bool:
    """Return whether a tensor is a parameter. For any other type, torch decides it in Python."""
    return type(tensor) is nn.Parameter or isinstance(tensor, nn.Parameter)


def dotted_name(path: str, local: str) -> str:
    """Return the dotted name of a tensor or module from the path of the module that has it.

    >>> dotted_name('stem.0', 'weight'), dotted_name('', 'weight')
    ('stem.0.weight', 'weight')
    """
    return f'{path}.{local}' if path else local


def named_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Return name -> tensor, for the parameters and buffers of a module and of its parts."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def find_module(model: nn.Module, path: str) -> nn.Module:
    """Return the module with a dotted path, as ``get_submodule`` does in a tenth of the time."""
    module: Any = model
    for name in path.split('.') if path else ():
        module = module.__dict__['_modules'].get(name)
        if module is None:
            return model.get_submodule(path)
    return module


def own_tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield (name, tensor) for the parameters and buffers of a module without its parts."""
    for entries in (module._parameters, module._buffers):
        for name, tensor in entries.items():
            if tensor is not None:
                yield name, tensor


Attributes = Mapping[tuple[str, str], Any]
"""(path of a module, name of an attribute) -> value."""


def set_attributes(modules: Mapping[str, nn.Module], attributes: Attributes) -> None:
    """Set attributes of modules.

    Args:
        modules: dotted path -> module.
        attributes: the values to set.
    """
    for (path, name), value in attributes.items():
        set_attribute(modules[path], name, value)


class StandIns(Inventory):
    """A model whose forward pass can run on stand-ins for its parameters and buffers.

    It keeps once what a forward pass may change. Each run ends by restoring that.

    Attributes:
        code: what is proved about the code of the modules.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.code = PlainCode(self.modules.values())
        # Recurrent layers list their weights a second time.
        self._recurrent = [m for m in self.modules.values() if '_flat_weights_names' in m.__dict__]
        self._running = ['']
        leaves = {kind: leaf_of(kind) for kind in self.code.types}
        self._calls = [
            (path, m.__dict__, make_call(m, leaves[type(m)], path, self._running))
            for path, m in self.modules.items()
        ]
        # Few types do more in train() than nn.Module does.
        special = {kind for kind in self.code.types if kind.train is not nn.Module.train}
        self._needs_eval = {path for path, m in self.modules.items() if special and needs_eval(m)}

    @cached_property
    def _before(self) -> ForwardState:
        """All that code may change. It is first asked for when nothing has run, or changed it."""
        return ForwardState(self.modules.values())

    @property
    def path(self) -> str:
        """The dotted path of the module whose forward is running; '' is the model itself."""
        return self._running[-1]

    @contextlib.contextmanager
    def with_tensors(
        self, tensors: Mapping[str, Tensor], training: bool, only_calls: bool = False
    ) -> Iterator[None]:
        """Give the modules other tensors for a block, in the given mode.

        What else the block changes, such as attributes of modules, is restored as well. Modes are
        set directly, because a model may override ``train()`` to do more. Modules that cannot do
        without it stay in training mode.

        Args:
            tensors: name of a parameter or buffer -> stand-in, for all of :attr:`tensors`.
            training: training mode instead of evaluation mode.
            only_calls: whether the block does nothing but call the model.
        """
        is_plain = only_calls and self.code.changes_nothing
        restore = self._keep_tensors() if is_plain else self._before.restore
        try:
            self.swap(tensors)
            for path, entries, call in self._calls:
                # A module calls this in place of its forward. module.compile() sets it as well.
                entries['_compiled_call_impl'] = call
                entries['training'] = training or path in self._needs_eval
            yield
        finally:
            for _, entries, _ in self._calls:
                entries.pop('_compiled_call_impl', None)
            restore()

    def _keep_tensors(self) -> Callable[[], None]:
        """Keep what :meth:`with_tensors` itself changes, and the parts of modules.

        Returns:
            A function that restores it.
        """
        modes = [(entries, entries['training']) for _, entries, _ in self._calls]
        parts = [(m._modules, m._modules.copy()) for m in self.modules.values() if m._modules]

        def restore() -> None:
            self.swap(self.tensors)
            for entries, training in modes:
                entries['training'] = training
            for own, content in parts:
                restore_content(own, content)

        return restore

    def swap(self, tensors: Mapping[str, Tensor]) -> None:
        """Give the modules other tensors. Call this only in the block of :meth:`with_tensors`."""
        for entries, _, local, name in self.slots:
            entries[local] = tensors[name]
        for module in self._recurrent:
            own = module.__dict__
            own['_flat_weights'] = [getattr(module, name) for name in own['_flat_weights_names']]


def without_fast_path() -> contextlib.AbstractContextManager[None]:
    """Disable the fused inference kernel of ``nn.MultiheadAttention``, which hides its parts."""
    mha = torch.backends.mha
    return changed_setting(mha.get_fastpath_enabled, mha.set_fastpath_enabled, False)
