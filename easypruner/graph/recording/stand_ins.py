"""Stand-ins: run a model's forward pass on other tensors than its own, then restore the model."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from easypruner.graph.recording.attributes import Snapshot
from easypruner.graph.recording.inventory import Inventory


class StandIns(Inventory):
    """A model whose forward pass can run on stand-ins for its parameters and buffers.

    It copies the attributes of all modules once. Each run ends by restoring them.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self._before = Snapshot(self.modules.values())
        # Recurrent layers list their weights a second time.
        self._recurrent = [m for m in self.modules.values() if '_flat_weights_names' in m.__dict__]
        self._running = ['']
        self._calls = [
            (module.__dict__, _tracked(module._call_impl, path, self._running))
            for path, module in self.modules.items()
        ]

    @property
    def path(self) -> str:
        """The dotted path of the module whose forward is running; '' is the model itself."""
        return self._running[-1]

    @contextlib.contextmanager
    def with_tensors(self, tensors: Mapping[str, Tensor], training: bool) -> Iterator[None]:
        """Give the modules other tensors for a block, in the given mode.

        The block may change attributes of modules: they are restored as well. Modes are set
        directly, because a model may override ``train()`` to do more.

        Args:
            tensors: name of a parameter or buffer -> stand-in, for all of :attr:`tensors`.
            training: training mode instead of evaluation mode.
        """
        try:
            self.swap(tensors)
            for entries, call in self._calls:
                # A module calls this in place of its forward. module.compile() sets it as well.
                entries['_compiled_call_impl'] = call
                entries['training'] = training
            yield
        finally:
            for entries, _ in self._calls:
                entries.pop('_compiled_call_impl', None)
            self._before.restore()

    def swap(self, tensors: Mapping[str, Tensor]) -> None:
        """Give the modules other tensors. Call this only in the block of :meth:`with_tensors`."""
        for slot in self.slots:
            slot.entries[slot.local] = tensors[slot.name]
        for module in self._recurrent:
            own = module.__dict__
            own['_flat_weights'] = [getattr(module, name) for name in own['_flat_weights_names']]


def _tracked(call: Callable[..., Any], path: str, running: list[str]) -> Callable[..., Any]:
    """Return a function that calls ``call`` while ``path`` is the last of the running modules."""

    def tracked(*args: Any, **kwargs: Any) -> Any:
        running.append(path)
        try:
            return call(*args, **kwargs)
        finally:
            running.pop()

    return tracked


@contextlib.contextmanager
def without_fast_path() -> Iterator[None]:
    """Disable the fused inference kernel of ``nn.MultiheadAttention``, which hides its parts."""
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)
