"""Rules for operations that take dimensions apart and put them together: slice, split, cat."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from easypruner.graph.coupling.coupling import Axis, Coupling
from easypruner.graph.coupling.rules import rule
from easypruner.graph.coupling.rules.arguments import argument, first_tensor, wrap
from easypruner.graph.recording.tape import Operation


@rule('cat', 'concat', 'concatenate')
def cat(coupling: Coupling, operation: Operation) -> None:
    tensors = [t for t in operation.args[0] if t.dim() > 1 or t.numel()]
    output = operation.outputs[0]
    if not tensors:
        coupling.assign(output, (coupling.constant(size) for size in output.shape))
        return
    dim = wrap(argument(operation, 1, 'dim', 0), output.dim())
    every = [coupling.axes(tensor) for tensor in tensors]
    result = [_together(coupling, [axes[i] for axes in every]) for i in range(output.dim())
              if i != dim]  # fmt: skip
    joined = [axes[dim] for axes in every]
    if all(coupling.is_constant(axis) for axis in joined):
        along = coupling.resized(joined[0], output.shape[dim])
    else:
        along = np.concatenate(joined)
    result.insert(dim, along)
    coupling.assign(output, result)


@rule('stack')
def stack(coupling: Coupling, operation: Operation) -> None:
    tensors = operation.args[0]
    output = operation.outputs[0]
    dim = wrap(argument(operation, 1, 'dim', 0), output.dim())
    every = [coupling.axes(tensor) for tensor in tensors]
    result = [_together(coupling, [axes[i] for axes in every]) for i in range(output.dim() - 1)]
    result.insert(dim, coupling.constant(len(tensors)))
    coupling.assign(output, result)


def _together(coupling: Coupling, axes: Sequence[Axis]) -> Axis:
    result = axes[0]
    for axis in axes[1:]:
        result = coupling.couple(result, axis)
    return result


@rule('slice', 'slice_copy', 'narrow')
def slice_(coupling: Coupling, operation: Operation) -> None:
    x = first_tensor(operation)
    axes = list(coupling.axes(x))
    dim = wrap(argument(operation, 1, 'dim', 0), x.dim())
    size = x.shape[dim]
    output = operation.outputs[0]
    if operation.name == 'narrow':
        start = wrap(operation.args[2], size)
        window = slice(start, start + output.shape[dim])
    else:
        first, last = argument(operation, 2, 'start'), argument(operation, 3, 'end')
        window = slice(*slice(first, last, argument(operation, 4, 'step', 1)).indices(size))
    axis = axes[dim]
    if output.shape[dim] != size:
        if output.shape[dim] == 1:
            coupling.fix(axis, 'one channel is picked by its position')
        axes[dim] = _piece(coupling, axis, window, output.shape[dim])
        _even_pieces(coupling, axis, window)
    coupling.assign(output, axes)


def _piece(coupling: Coupling, axis: Axis, window: slice, size: int) -> Axis:
    if coupling.is_constant(axis):
        return coupling.resized(axis, size)
    return axis[window]


def _even_pieces(coupling: Coupling, axis: Axis, window: slice) -> None:
    """Couple a window with its neighbours where it is one of several equal parts.

    Bounds such as ``channels // 2`` are computed from the shape, so the parts must stay equal.
    """
    if coupling.is_constant(axis):
        return
    if window.step != 1:
        _every_few(coupling, axis, window.step)
        return
    size = window.stop - window.start
    if size > 1 and axis.size % size == 0 and window.start % size == 0:
        rows = axis.reshape(-1, size)
        for row in rows[1:]:
            coupling.couple(rows[0], row)


def _every_few(coupling: Coupling, axis: Axis, step: int) -> None:
    """Couple the channels within each step, so that those behind keep their turn."""
    if axis.size % step:
        coupling.fix(axis, f'one of {step} channels is picked, and the last step is shorter')
        return
    turns = axis.reshape(-1, step).T
    for turn in turns[1:]:
        coupling.couple(turns[0], turn)


@rule('select', 'select_copy')
def select(coupling: Coupling, operation: Operation) -> None:
    x = first_tensor(operation)
    axes = list(coupling.axes(x))
    dim = wrap(argument(operation, 1, 'dim', 0), x.dim())
    coupling.fix(axes.pop(dim), 'one channel is picked by its position')
    coupling.assign(operation.outputs[0], axes)


@rule('unbind', 'unbind_copy')
def unbind(coupling: Coupling, operation: Operation) -> None:
    x = first_tensor(operation)
    axes = list(coupling.axes(x))
    dim = wrap(argument(operation, 1, 'dim', 0), x.dim())
    coupling.fix(axes.pop(dim), 'channels are taken apart one by one')
    for output in operation.outputs:
        coupling.assign(output, axes)


@rule('split', 'split_copy', 'chunk', 'tensor_split', 'unsafe_split', 'unsafe_chunk')
def split(coupling: Coupling, operation: Operation) -> None:
    _split(coupling, operation, even=True)


@rule('split_with_sizes', 'split_with_sizes_copy', 'unsafe_split_with_sizes')
def split_with_sizes(coupling: Coupling, operation: Operation) -> None:
    _split(coupling, operation, even=False)


def _split(coupling: Coupling, operation: Operation, even: bool) -> None:
    x = first_tensor(operation)
    dim = wrap(argument(operation, 2, 'dim', 0), x.dim())
    axes = coupling.axes(x)
    outputs: tuple[Tensor, ...] = operation.outputs
    start = 0
    pieces = []
    for output in outputs:
        window = slice(start, start + output.shape[dim])
        pieces.append(_piece(coupling, axes[dim], window, output.shape[dim]))
        start = window.stop
    if even and not coupling.is_constant(axes[dim]):
        for piece in pieces[1:]:
            if piece.size == pieces[0].size:
                coupling.couple(pieces[0], piece)
            else:
                coupling.fix(axes[dim], 'a split into unequal parts by one size')
    for output, piece in zip(outputs, pieces, strict=True):
        coupling.assign(output, (*axes[:dim], piece, *axes[dim + 1 :]))


@rule('as_strided')
def as_strided(coupling: Coupling, operation: Operation) -> None:
    x = first_tensor(operation)
    output = operation.outputs[0]
    if output is x:
        return
    if tuple(output.shape) == tuple(x.shape) and _steps(output) == _steps(x):
        coupling.assign(output, coupling.axes(x))
        return
    for axis in coupling.axes(x):
        coupling.fix(axis, 'memory is addressed by strides')
    coupling.assign(output, (coupling.constant(size) for size in output.shape))


def _steps(tensor: Tensor) -> list[int]:
    """Return the strides that matter: along a single entry there is no step."""
    pairs = zip(tensor.shape, tensor.stride(), strict=True)
    return [stride for size, stride in pairs if size > 1]


@rule('select_scatter', 'slice_scatter')
def scatter_piece(coupling: Coupling, operation: Operation) -> None:
    x, source = operation.args[:2]
    axes = coupling.axes(x)
    dim = wrap(argument(operation, 2, 'dim', 0), x.dim())
    coupling.fix(axes[dim], 'a part is written at a fixed position')
    rest = list(coupling.axes(source))
    if source.dim() == x.dim():
        coupling.fix(rest.pop(dim), 'a part is written at a fixed position')
    for axis, other in zip((a for i, a in enumerate(axes) if i != dim), rest, strict=True):
        coupling.couple(axis, other)
    coupling.assign(operation.outputs[0], axes)


@rule('glu')
def glu(coupling: Coupling, operation: Operation) -> None:
    x = first_tensor(operation)
    dim = wrap(argument(operation, 1, 'dim', -1), x.dim())
    axes = list(coupling.axes(x))
    axis, half = axes[dim], x.shape[dim] // 2
    if coupling.is_constant(axis):
        axes[dim] = _piece(coupling, axis, slice(half), half)
    else:
        axes[dim] = coupling.couple(axis[:half], axis[half:])
    coupling.assign(operation.outputs[0], axes)
