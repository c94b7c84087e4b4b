"""The steps of a forward pass: what it computes, counted."""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

from easypruner.graph.recording.composites import run_parts
from easypruner.graph.recording.inventory import StandIns
from easypruner.graph.recording.kinds import Kind, kind_of
from easypruner.graph.recording.meta_shapes import tensors_of
from easypruner.graph.recording.values import Watcher
from easypruner.graph.trial.expected import STEPS

_OTHERS = STEPS | {'cat'}
_BIAS = frozenset({'add'})
_PRODUCTS = frozenset({'mm', 'addmm', 'bmm', 'baddbmm'})
_PRODUCT = 'matrix product'
_EINSUM = torch.functional.einsum.__code__
_EINSUM_PRODUCT = replace(kind_of(torch.ops.aten.mul.Tensor), computes=False)

Step = tuple[str, str]
"""The name of an operation, and the path of the module that runs it."""

Path = Mapping[Step, float]
"""How often each step runs; infinite where it may run as often as it does."""


class Walk:
    """Counts the steps of a pass.

    A step computes something of tensors of the network. What code computes of other tensors, such
    as a table of positions, is none: code may make a table anew for each width.

    Args:
        modules: dotted path -> module of the network.
        parameters: its parameters and buffers.
        inputs: the tensors that it gets.
    """

    def __init__(
        self,
        modules: Mapping[str, nn.Module],
        parameters: Iterable[Tensor],
        inputs: Iterable[Tensor],
    ) -> None:
        self.path: Counter[Step] = Counter()
        # Elsewhere, torch multiplies tensors in another way if a width is 1.
        self._linear = {path for path, module in modules.items() if isinstance(module, nn.Linear)}
        # Tensors are kept, so that no other tensor gets the id of one of them.
        self._parameters = {id(tensor): tensor for tensor in parameters}
        self._made = {id(tensor): tensor for tensor in inputs}

    def take(
        self, kind: Kind, module: str, inputs: Sequence[Tensor], outputs: Sequence[Tensor]
    ) -> Step | None:
        """Note an operation; return its step, or None if it is none."""
        made = sum(id(tensor) in self._made for tensor in inputs)
        if not made and not any(id(tensor) in self._parameters for tensor in inputs):
            return None
        own = self._made if made else self._parameters
        own.update({id(tensor): tensor for tensor in outputs})
        name = kind.name.removesuffix('_')
        if name in _PRODUCTS and module in self._linear:
            name = _PRODUCT
        # A bias may be added by an operation of its own, which depends on the layout in memory.
        elif not (kind.computes or name in _OTHERS) or (name in _BIAS and made < len(inputs)):
            return None
        self.path[name, module] += 1
        return name, module


class SurplusError(Exception):
    """A step runs more often than without a cut."""

    def __init__(self, step: Step, times: float) -> None:
        super().__init__(f'{step[0]} runs more than {times:g} times')
        self.step, self.times = step, times


class PathWatcher(Watcher):  # type: ignore[no-untyped-call]
    """Counts the steps of a pass, and raises at the first that runs more often than expected."""

    def __init__(self, stand_ins: StandIns, walk: Walk, expected: Path | None) -> None:
        super().__init__()
        self._stand_ins, self._walk, self._expected = stand_ins, walk, expected

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        kind = kind_of(func)
        if kind.is_composite:
            return run_parts(self, func, args, kwargs)
        result = self.run(func, args, kwargs)
        # Torch takes this product instead of that of matrices if a width is 1.
        if kind.name == 'mul' and _is_of_einsum():
            kind = _EINSUM_PRODUCT
        inputs = tensors_of((*args, *kwargs.values()) if kwargs else args)
        step = self._walk.take(kind, self._stand_ins.path, inputs, tensors_of((result,)))
        if step is not None and self._walk.path[step] > (most := self._most(step)):
            raise SurplusError(step, most)
        return result

    def _most(self, step: Step) -> float:
        return math.inf if self._expected is None else self._expected.get(step, 0)


def _is_of_einsum() -> bool:
    """Return whether torch.einsum runs the operation."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code is not _EINSUM:
        frame = frame.f_back
    return frame is not None
