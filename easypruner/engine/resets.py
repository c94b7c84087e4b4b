"""Detection of layers that still have the initial weights of their ``reset_parameters()``."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from easypruner.graph.recording.inventory import named_tensors

_RESET = 'reset_parameters'


class Resets:
    """The tensors that layers had right after their own ``reset_parameters()``."""

    def __init__(self) -> None:
        self._given: dict[int, tuple[nn.Module, dict[str, Tensor]]] = {}

    def note(self, module: nn.Module) -> None:
        """Store the tensors of a layer after its reset."""
        self._given[id(module)] = (module, _own(module))

    def are_all_of(self, module: nn.Module) -> bool:
        """Return whether a layer was reset and its tensors are unchanged since then."""
        if id(module) not in self._given:
            return False
        given, now = self._given[id(module)][1], _own(module)
        return given.keys() == now.keys() and all(torch.equal(given[n], now[n]) for n in now)


@contextlib.contextmanager
def resets() -> Iterator[Resets]:
    """Record the resets of all layers that are built during a block.

    A layer resets itself in its constructor. If the code of a model changes the weights afterwards
    in any way, a comparison with the recorded tensors shows it.
    """
    found = Resets()
    with contextlib.ExitStack() as patches:
        for cls in _classes(nn.Module):
            if _RESET in vars(cls):
                watched = _watched(vars(cls)[_RESET], found)
                patches.enter_context(mock.patch.object(cls, _RESET, watched))
        yield found


def _watched(reset: Callable[..., Any], found: Resets) -> Callable[..., Any]:
    @functools.wraps(reset)
    def watched(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        result = reset(self, *args, **kwargs)
        found.note(self)
        return result

    return watched


def _classes(cls: type[nn.Module]) -> Iterator[type[nn.Module]]:
    for derived in cls.__subclasses__():
        yield derived
        yield from _classes(derived)


def _own(module: nn.Module) -> dict[str, Tensor]:
    own = named_tensors(module, recurse=False)
    return {name: tensor.detach().clone() for name, tensor in own.items()}
