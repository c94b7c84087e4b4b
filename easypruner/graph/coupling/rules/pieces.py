"""Rules for operations that take dimensions apart and put them together: slice, split, cat."""

from __future__ import annotations

from torch import Tensor

from easypruner.graph.coupling.axes import Axis
from easypruner.graph.coupling.coupling import Coupling
from easypruner.graph.coupling.rules.arguments import argument, dim_argument, wrap
from easypruner.graph.coupling.rules.registration import rule
from easypruner.graph.recording.tape import Operation

_PICKED = 'one channel is picked by its position'
_WRITTEN = 'a part is written at a fixed position'


@rule('cat', 'concat', 'concatenate')
def cat(coupling: Coupling, operation: Operation) -> None:
    """Join the axes along one dimension; couple those along each of the others."""
    tensors = [t for t in operation.args[0] if t.dim() > 1 or t.numel()]
    output = operation.outputs[0]
    if not tensors:
        coupling.assign_constants(output)
        return
    dim = wrap(argument(operation, 1, 'dim', 0), output.dim())
    dimensions = zip(*(coupling.axes_of(tensor) for tensor in tensors), strict=True)
    coupling.assign(
        output,
        [
            Axis.joined(axes) if i == dim else coupling.couple_all(axes)
            for i, axes in enumerate(dimensions)
        ],
    )


@rule('stack')
def stack(coupling: Coupling, operation: Operation) -> None:
    """Couple the tensors along every dimension; the new dimension counts them."""
    tensors = operation.args[0]
    output = operation.outputs[0]
    dimensions = zip(*(coupling.axes_of(tensor) for tensor in tensors), strict=True)
    result = [coupling.couple_all(axes) for axes in dimensions]
    dim = wrap(argument(operation, 1, 'dim', 0), output.dim())
    result.insert(dim, coupling.make_constant(len(tensors)))
    coupling.assign(output, result)


@rule('slice', 'slice_copy', 'narrow')
def cut_window(coupling: Coupling, operation: Operation) -> None:
    """Hand the window's part of an axis on; a window that is one of several equal ones is coupled.

    Bounds such as ``channels // 2`` are computed from the shape, so equal parts must stay equal.
    """
    x = operation.tensors[0]
    axes = list(coupling.axes_of(x))
    dim = dim_argument(operation, 1)
    size, left = x.shape[dim], operation.outputs[0].shape[dim]
    if operation.name == 'narrow':
        start = wrap(operation.args[2], size)
        window = slice(start, start + left, 1)
    else:
        first, last = argument(operation, 2, 'start'), argument(operation, 3, 'end')
        window = slice(*slice(first, last, argument(operation, 4, 'step', 1)).indices(size))
    if left != size:
        axis = axes[dim]
        if left == 1:
            coupling.freeze(axis, _PICKED)
        axes[dim] = axis[window]
        _couple_windows(coupling, axis, window)
    coupling.assign(operation.outputs[0], axes)


def _couple_windows(coupling: Coupling, axis: Axis, window: slice) -> None:
    """Couple a window with its neighbours where it is one of several equal parts."""
    step, size = window.step, window.stop - window.start
    if step != 1 and axis.size % step:
        coupling.freeze(axis, f'one of {step} channels is picked, and the last step is shorter')
    elif step != 1:
        coupling.couple_within(axis, step)
    elif size > 1 and axis.size % size == 0 and window.start % size == 0:
        coupling.couple_runs(axis, axis.size // size)


@rule('select', 'select_copy')
def select(coupling: Coupling, operation: Operation) -> None:
    """Freeze the dimension of which one index is picked; hand the others on."""
    axes = list(coupling.axes_of(operation.tensors[0]))
    coupling.freeze(axes.pop(dim_argument(operation, 1)), _PICKED)
    coupling.assign(operation.outputs[0], axes)


@rule('unbind', 'unbind_copy')
def unbind(coupling: Coupling, operation: Operation) -> None:
    """Freeze the dimension that is taken apart: the code expects as many tensors as there are."""
    axes = list(coupling.axes_of(operation.tensors[0]))
    coupling.freeze(axes.pop(dim_argument(operation, 1)), 'channels are taken apart one by one')
    for output in operation.outputs:
        coupling.assign(output, axes)


@rule('split', 'split_copy', 'chunk', 'tensor_split', 'unsafe_split', 'unsafe_chunk')
def split_evenly(coupling: Coupling, operation: Operation) -> None:
    """Give each output its part of the axis; equal parts are coupled, so that they stay equal."""
    dim = dim_argument(operation, 2)
    axis = coupling.axes_of(operation.tensors[0])[dim]
    if len({output.shape[dim] for output in operation.outputs}) == 1:
        coupling.couple_runs(axis, len(operation.outputs))
    else:
        coupling.freeze(axis, 'a split into unequal parts by one size')
    _assign_parts(coupling, operation, dim)


@rule('split_with_sizes', 'split_with_sizes_copy', 'unsafe_split_with_sizes')
def split_by_sizes(coupling: Coupling, operation: Operation) -> None:
    """Give each output its part of the axis."""
    _assign_parts(coupling, operation, dim_argument(operation, 2))


def _assign_parts(coupling: Coupling, operation: Operation, dim: int) -> None:
    axes = coupling.axes_of(operation.tensors[0])
    start = 0
    for output in operation.outputs:
        stop = start + output.shape[dim]
        coupling.assign(output, (*axes[:dim], axes[dim][start:stop], *axes[dim + 1 :]))
        start = stop


@rule('as_strided')
def as_strided(coupling: Coupling, operation: Operation) -> None:
    """Freeze everything, unless the view shows the whole tensor as it is."""
    x = operation.tensors[0]
    output = operation.outputs[0]
    if output is x:
        return
    if tuple(output.shape) == tuple(x.shape) and _steps(output) == _steps(x):
        coupling.assign(output, coupling.axes_of(x))
        return
    coupling.freeze_tensor(x, 'memory is addressed by strides')
    coupling.assign_constants(output)


def _steps(tensor: Tensor) -> list[int]:
    """Return the strides that matter: along a single entry there is no step."""
    pairs = zip(tensor.shape, tensor.stride(), strict=True)
    return [stride for size, stride in pairs if size > 1]


@rule('select_scatter', 'slice_scatter')
def write_window(coupling: Coupling, operation: Operation) -> None:
    """Freeze the dimension in which a window is written; couple the others with the source's."""
    x, source = operation.args[:2]
    axes = coupling.axes_of(x)
    dim = dim_argument(operation, 2)
    coupling.freeze(axes[dim], _WRITTEN)
    rest = list(coupling.axes_of(source))
    if source.dim() == x.dim():
        coupling.freeze(rest.pop(dim), _WRITTEN)
    for axis, other in zip((a for i, a in enumerate(axes) if i != dim), rest, strict=True):
        coupling.couple(axis, other)
    coupling.assign(operation.outputs[0], axes)


@rule('glu')
def gate(coupling: Coupling, operation: Operation) -> None:
    """Couple both halves of an axis: one gates the other, channel by channel."""
    axes = list(coupling.axes_of(operation.tensors[0]))
    dim = dim_argument(operation, 1, default=-1)
    axes[dim] = coupling.couple_runs(axes[dim], 2)
    coupling.assign(operation.outputs[0], axes)
