"""Rehearsal: running a model's forward on stand-ins for its tensors, and leaving it as it was."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from easypruner.graph.recording.attributes import Snapshot
from easypruner.graph.recording.inventory import Inventory


class Rehearsal(Inventory):
    """A model whose forward can be run on other tensors than its own.

    What the modules hold is written down once; every run ends with putting it back.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self._before = Snapshot(self.modules.values())
        # Recurrent layers list their weights a second time.
        self._recurrent = [m for m in self.modules.values() if '_flat_weights_names' in m.__dict__]
        self._path: list[str] = ['']
        self._calls = [
            (module.__dict__, _tracked(module._call_impl, path, self._path))
            for path, module in self.modules.items()
        ]

    @property
    def path(self) -> str:
        """Dotted path of the module whose forward is running ('' is the model itself)."""
        return self._path[-1]

    @contextlib.contextmanager
    def with_tensors(self, tensors: Mapping[str, Tensor], training: bool) -> Iterator[None]:
        """Let the modules hold ``tensors`` in place of their own, in the given mode.

        Whatever else changes in the modules' attributes meanwhile is put back as well. Modes are
        set directly: ``train()`` is often overridden and may do more than that.

        Args:
            tensors: under the names of :attr:`tensors`.
            training: training mode instead of evaluation mode.
        """
        called = [(held, held.get('_compiled_call_impl')) for held, _ in self._calls]
        try:
            self.swap(tensors)
            for held, call in self._calls:
                # A module calls this instead of its forward; it is what module.compile() sets.
                held['_compiled_call_impl'] = call
                held['training'] = training
            yield
        finally:
            for held, before in called:
                if before is None:
                    held.pop('_compiled_call_impl', None)
            self._before.restore()

    def swap(self, tensors: Mapping[str, Tensor]) -> None:
        """Let the modules hold ``tensors``; only to be used within :meth:`with_tensors`."""
        for slot in self.slots:
            slot.holder[slot.local] = tensors[slot.name]
        for module in self._recurrent:
            flat = module.__dict__
            flat['_flat_weights'] = [getattr(module, n) for n in flat['_flat_weights_names']]


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
