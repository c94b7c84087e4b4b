"""Rules for operations that join tensors or take parts of them: cat, slice, split."""

from __future__ import annotations

from easypruner.graph.coupling.axes import Axis
from easypruner.graph.coupling.memory import window_of
from easypruner.graph.coupling.rules.pointwise import drop, drop_frozen
from easypruner.graph.coupling.rules.registration import Coupling, Operation, rule
from easypruner.graph.coupling.strided import followed_dims, stays_inside

_PICKED = 'one channel is picked by its position'
_STACKED = 'one entry for each of the tensors that are stacked'
_STRIDED = 'memory is addressed by strides'
_UNREAD = 'lies outside of the part that the code reads of a parameter'
_WRITTEN = 'a part is written at a fixed position'


@rule('cat', 'concat', 'concatenate')
def cat(coupling: Coupling, operation: Operation) -> None:
    """Join the axes along one dimension; couple those along each of the others."""
    tensors = [t for t in operation.args[0] if t.dim() > 1 or t.numel()]
    if not tensors:
        coupling.assign_constants(operation.output)
        return
    dim = operation.argument('dim') % operation.output.dim()
    dimensions = zip(*(coupling.axes_of(tensor) for tensor in tensors), strict=True)
    result = [
        Axis.joined(axes) if i == dim else coupling.couple_all(axes)
        for i, axes in enumerate(dimensions)
    ]
    coupling.assign(operation.output, result)


@rule('stack')
def stack(coupling: Coupling, operation: Operation) -> None:
    """Couple the axes along every dimension. The new dimension counts the tensors."""
    tensors = operation.args[0]
    dimensions = zip(*(coupling.axes_of(tensor) for tensor in tensors), strict=True)
    result = [coupling.couple_all(axes) for axes in dimensions]
    dim = operation.argument('dim') % operation.output.dim()
    result.insert(dim, coupling.make_constant(len(tensors), coupling.explain(_STACKED)))
    coupling.assign(operation.output, result)


@rule('slice', 'slice_copy', 'narrow')
def cut_window(coupling: Coupling, operation: Operation) -> None:
    """Give the output its part of an axis. If the axis has several parts of that size, couple them.

    Code computes bounds such as ``channels // 2`` from the shape, so equal parts must stay equal.
    Windows of several sizes, such as those of queries, keys and values, are not parts of that kind.
    """
    x, (dim,) = operation.tensors[0], operation.dims()
    axes, window = list(coupling.axes_of(x)), window_of(operation)
    axis, left = axes[dim], operation.output.shape[dim]
    if left == 1 and _is_outermost(axis, window.start) and coupling.templates.has(operation):
        axes[dim] = coupling.make_constant(1)
    elif left != axis.size:
        if left == 1 and axis.ids[window.start] >= 0:  # another one may be that of a padding
            coupling.freeze(axis, _PICKED)
        axes[dim] = axis[window]
        windows = coupling.memory.windows.get(x) or ()
        of_one_size = len({size for other, size in windows if other == dim}) < 2
        if window.step != 1 or (of_one_size and _has_equal_parts(axis, window)):
            _couple_windows(coupling, axis, window)
        elif coupling.parameter_of(x) is not None and not axis.is_constant:
            coupling.freeze(Axis(axis.ids[coupling.memory.unread(x, dim)]), _UNREAD)
    coupling.assign(operation.output, axes)


def _is_outermost(axis: Axis, index: int) -> bool:
    """Return whether an index is the first or last of an axis, which there is after any cut."""
    return index in (0, -1, axis.size - 1)


def _has_equal_parts(axis: Axis, window: slice) -> bool:
    """Return whether an axis consists of a window of neighbours and others of its size."""
    size = window.stop - window.start
    return size > 1 and axis.size % size == 0 and window.start % size == 0


def _couple_windows(coupling: Coupling, axis: Axis, window: slice) -> None:
    """Couple a window with the other parts of an axis, which are equally large."""
    step = window.step
    if step != 1 and axis.size % step:
        coupling.freeze(axis, f'one of {step} channels is picked, and the last step is shorter')
    elif step != 1:
        coupling.couple_within(axis, step)
    else:
        coupling.couple_runs(axis, axis.size // (window.stop - window.start))


@rule('select', 'select_copy', 'unbind', 'unbind_copy')
def select(coupling: Coupling, operation: Operation) -> None:
    """Freeze the dimension of which single indices are picked; hand the others on."""
    one = operation.name.startswith('select')
    dims = operation.dims()
    if one and coupling.templates.has(operation):
        (axis,) = (coupling.axes_of(operation.tensors[0])[dim] for dim in dims)
        if _is_outermost(axis, operation.args[2]):
            drop(coupling, operation, dims)
            return
    reason = _PICKED if one else 'channels are taken apart one by one'
    drop_frozen(coupling, operation, dims, reason)


@rule('split_with_sizes', 'split_with_sizes_copy', 'unsafe_split_with_sizes')
def split_by_sizes(coupling: Coupling, operation: Operation) -> None:
    """Give each output its part of the axis."""
    axes = coupling.axes_of(operation.tensors[0])
    (dim,), start = operation.dims(), 0
    for output in operation.outputs:
        stop = start + output.shape[dim]
        coupling.assign(output, (*axes[:dim], axes[dim][start:stop], *axes[dim + 1 :]))
        start = stop


@rule('split', 'split_copy', 'chunk', 'tensor_split', 'unsafe_split', 'unsafe_chunk')
def split_evenly(coupling: Coupling, operation: Operation) -> None:
    """Give each output its part of the axis. Couple equal parts, so that they stay equal."""
    (dim,) = operation.dims()
    axis = coupling.axes_of(operation.tensors[0])[dim]
    sizes = [output.shape[dim] for output in operation.outputs]
    if len(set(sizes)) == 1:
        coupling.couple_runs(axis, len(sizes))
    elif len(set(sizes[:-1])) == 1 and sizes[-1]:
        _couple_with_shorter(coupling, axis, sizes[0], sizes[-1])
    else:  # parts of tensor_split(), of which several have one channel more
        coupling.freeze(axis, 'a split into unequal parts')
    split_by_sizes(coupling, operation)


def _couple_with_shorter(coupling: Coupling, axis: Axis, size: int, last: int) -> None:
    """Couple equal parts with a last part that is shorter, as ``chunk`` makes it.

    The parts lose the same positions. The positions that the last part does not have belong to one
    unit with its last one, so that the parts differ by as many channels as before.
    """
    parts = [axis[start : start + size] for start in range(0, axis.size - last, size)]
    short = axis[axis.size - last :]
    for part in parts:
        coupling.couple(part[:last], short)
        coupling.couple(part[last:], short[last - 1 :].repeated(size - last))


@rule('as_strided')
def as_strided(coupling: Coupling, operation: Operation) -> None:
    """Hand on the axes along which the view runs as the tensor does; freeze the others."""
    x, output = operation.tensors[0], operation.output
    if output is x:
        return
    axes, followed = coupling.axes_of(x), followed_dims(*operation.args)
    for dim, axis in enumerate(axes):
        if dim not in followed:
            coupling.freeze(axis, _STRIDED)
    if not stays_inside(*operation.args):
        for base in coupling.memory.with_bases(x):
            coupling.freeze_tensor(base, _STRIDED)
    coupling.assign(
        output,
        [
            coupling.make_constant(size) if dim is None else axes[dim]
            for dim, size in zip(followed, output.shape, strict=True)
        ],
    )


@rule('select_scatter', 'slice_scatter')
def write_window(coupling: Coupling, operation: Operation) -> None:
    """Freeze the dimension in which a window is written; couple the others with the source."""
    x, source = operation.args[:2]
    axes = coupling.axes_of(x)
    (dim,) = operation.dims()
    coupling.freeze(axes[dim], _WRITTEN)
    rest = list(coupling.axes_of(source))
    if source.dim() == x.dim():
        coupling.freeze(rest.pop(dim), _WRITTEN)
    for axis, other in zip((a for i, a in enumerate(axes) if i != dim), rest, strict=True):
        coupling.couple(axis, other)
    coupling.assign(operation.output, axes)


@rule('glu')
def gate(coupling: Coupling, operation: Operation) -> None:
    """Couple both halves of an axis: each channel of one gates a channel of the other."""
    axes = list(coupling.axes_of(operation.tensors[0]))
    (dim,) = operation.dims()
    axes[dim] = coupling.couple_runs(axes[dim], 2)
    coupling.assign(operation.output, axes)
