"""Optimizer handlers: they cut the state of an optimizer along with its parameters."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from easypruner.base.component import Component
from easypruner.errors import CutError

Axis = int | tuple[int, ...] | None
"""The dimension of a parameter that a dimension of a state follows: several if they are flattened
into one, None if it follows none."""


@dataclass(frozen=True)
class ParameterCut:
    """The cut of a parameter whose state an optimizer keeps. The parameter has its old shape still.

    Attributes:
        name: the name of the parameter in its network.
        parameter: the parameter.
        kept: dimension -> the indices that stay, for each dimension that loses indices.
        optimizer: the optimizer.
        state: the optimizer's whole state of the parameter.
    """

    name: str
    parameter: Tensor
    kept: Mapping[int, Tensor]
    optimizer: Any
    state: Mapping[str, Any]

    @property
    def shape(self) -> torch.Size:
        """The shape before the cut."""
        return self.parameter.shape

    @cached_property
    def new_shape(self) -> torch.Size:
        """The shape after the cut."""
        sizes = enumerate(self.shape)
        return torch.Size(self.kept[d].numel() if d in self.kept else size for d, size in sizes)

    @property
    def group(self) -> Mapping[str, Any]:
        """The parameter group of the optimizer, with its options."""
        for group in self.optimizer.param_groups:
            if any(parameter is self.parameter for parameter in group['params']):
                return dict(group)
        return {}

    def take(self, value: Tensor, axes: Sequence[Axis]) -> Tensor:
        """Return the part of a state that belongs to what is left of the parameter.

        Args:
            value: a tensor of the state.
            axes: for each dimension of ``value``, the dimension of the parameter that it follows.

        Raises:
            CutError: the sizes of ``value`` are not those of the parameter's dimensions.
        """
        groups = [(axis,) if isinstance(axis, int) else axis for axis in axes]
        sizes = [None if a is None else math.prod(self.shape[d] for d in a) for a in groups]
        if len(sizes) != value.dim() or any(
            size not in (None, actual) for size, actual in zip(sizes, value.shape, strict=True)
        ):
            expected = ', '.join('any' if size is None else str(size) for size in sizes)
            raise CutError(
                f'{describe_optimizer(self.optimizer)} keeps a state of shape '
                f'{tuple(value.shape)} for {self.name!r} of shape {tuple(self.shape)}; expected '
                f'({expected}), the layout that its handler knows; create a new optimizer after '
                'the cut'
            )
        result = value
        for number, dims in enumerate(groups):
            if dims is not None and any(dim in self.kept for dim in dims):
                index = self._index(dims).to(value.device)
                result = result.index_select(number, index)
        return like_layout(result, value)

    def _index(self, dims: tuple[int, ...]) -> Tensor:
        """Return the indices that stay in dimensions that are flattened into one."""
        index = torch.zeros(1, dtype=torch.int64)
        for dim in dims:
            size = self.shape[dim]
            kept = self.kept[dim].cpu() if dim in self.kept else torch.arange(size)
            index = (index[:, None] * size + kept).flatten()
        return index


Layout = Callable[[ParameterCut, Any], Any]
"""Cuts one entry of a state."""


class OptimizerHandler(Component):
    """Cuts the state that optimizers keep for each parameter, such as momentum.

    A handler is created without arguments. Each optimizer has one handler, the first that fits:
    those given to :func:`easypruner.prune` come first, then those of plugins, then those for
    torch's own optimizers. An optimizer without a handler is refused once it has such a state.

    Attributes:
        handles: types of optimizers, or their full names, such as ``'timm.optim.Lion'``. A name
            needs no import. Subclasses are handled as well.
        layout: name of an entry of the state -> a function that cuts it. It gets the cut of the
            parameter and the old entry, and returns the new entry.
        inner: names of attributes with other optimizers, if these optimizers wrap others.
    """

    handles: ClassVar[tuple[type | str, ...]] = ()
    layout: ClassVar[Mapping[str, Layout]] = {}
    inner: ClassVar[tuple[str, ...]] = ()

    def cut_entry(self, key: str, value: Any, cut: ParameterCut) -> Any:
        """Return an entry of a parameter's state, cut with the parameter.

        It must not change the old entry, because a cut that fails is undone. Numbers, and tensors
        of one element, are left as they are and not passed.

        Args:
            key: the name of the entry.
            value: the entry.
            cut: the cut of the parameter.

        Returns:
            The new entry, or ``NotImplemented`` if its layout is not known, which refuses the cut.

        Raises:
            CutError: the entry cannot be cut.
        """
        layout = self.layout.get(key)
        return NotImplemented if layout is None else layout(cut, value)


def elementwise(cut: ParameterCut, value: Tensor) -> Tensor:
    """Cut a state with one number for each number of the parameter, in the parameter's shape."""
    return cut.take(value, range(cut.parameter.dim()))


def flattened(cut: ParameterCut, value: Tensor) -> Tensor:
    """Cut a state with one number for each number of the parameter, in one dimension."""
    return cut.take(value, [tuple(range(cut.parameter.dim()))])


def each(layout: Layout) -> Layout:
    """Return the layout of a list, tuple, deque or dict of entries that have a layout."""

    def cut_each(cut: ParameterCut, value: Any) -> Any:
        if isinstance(value, Mapping):
            return type(value)((key, layout(cut, entry)) for key, entry in value.items())  # type: ignore[call-arg]
        entries = [layout(cut, entry) for entry in value]
        if isinstance(value, deque):
            return deque(entries, value.maxlen)
        return type(value)(entries)

    return cut_each


def along(axes: Callable[[int], Sequence[Axis]]) -> Layout:
    """Return the layout of a tensor whose dimensions follow those of the parameter.

    Args:
        axes: number of the parameter's dimensions -> for each dimension of the entry, the
            dimension of the parameter that it follows.
    """
    return lambda cut, value: cut.take(value, axes(cut.parameter.dim()))


def without(*dims: int, keep: bool = False) -> Layout:
    """Return the layout of a statistic that is summed over some dimensions of the parameter.

    Args:
        *dims: the dimensions over which it is summed, negative ones counted from the end.
        keep: whether it has size 1 in these dimensions; else it does not have them.
    """

    def axes(count: int) -> list[Axis]:
        summed = {dim % count for dim in dims}
        every = [None if dim in summed else dim for dim in range(count)]
        return list(every) if keep else [axis for axis in every if axis is not None]

    return along(axes)


def like_layout(result: Tensor, original: Tensor) -> Tensor:
    """Return a part of a tensor in the memory layout of the whole, such as channels last."""
    # A tensor that is contiguous in both layouts is in none of its own.
    if original.is_sparse or original.is_contiguous():
        return result
    layout = {4: torch.channels_last, 5: torch.channels_last_3d}.get(original.dim())
    if layout is None:
        return result
    keeps_layout = original.is_contiguous(memory_format=layout)
    return result.contiguous(memory_format=layout) if keeps_layout else result


def describe_optimizer(optimizer: object) -> str:
    """Return the name of an optimizer's class for messages, with its package if it is not torch.

    >>> describe_optimizer(torch.optim.SGD([torch.zeros(1)]))
    'SGD'
    """
    cls = type(optimizer)
    package = cls.__module__.partition('.')[0]
    return cls.__qualname__ if package == 'torch' else f'{cls.__qualname__} of {package}'


def find_tensors(value: Any, ignored: Set[int] = frozenset(), depth: int = 6) -> Iterator[Tensor]:
    """Yield the tensors of several elements in nested containers and in attributes of objects.

    Args:
        value: a tensor, a container or an object, such as a preconditioner or an optimizer.
        ignored: ids of tensors to leave out.
        depth: how many levels to look into. Modules and functions are not looked into.
    """
    inside: Iterable[Any] = ()
    if isinstance(value, Tensor):
        if value.numel() != 1 and id(value) not in ignored:
            yield value
    elif isinstance(value, Mapping):
        inside = value.values()
    elif isinstance(value, list | tuple | Set | deque):
        inside = value
    elif not callable(value):
        inside = getattr(value, '__dict__', {}).values()
    if depth:
        for entry in inside:
            yield from find_tensors(entry, ignored, depth - 1)
