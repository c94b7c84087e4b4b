"""Rules for operations that rearrange dimensions: view, permute, expand, squeeze, flip."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from easypruner.graph.coupling.coupling import INNER, SINGLE, Axis, Coupling
from easypruner.graph.coupling.rules import rule
from easypruner.graph.coupling.rules.arguments import argument, first_tensor, wrap, wrap_all
from easypruner.graph.recording.tape import Operation


@rule('view', '_unsafe_view', 'reshape', '_reshape_alias', 'unflatten', 'flatten',
      'view_copy', '_reshape_copy')  # fmt: skip
def view(coupling: Coupling, operation: Operation) -> None:
    x = first_tensor(operation)
    output = operation.outputs[0]
    coupling.assign(output, regroup(coupling, coupling.axes(x), output.shape))


def regroup(coupling: Coupling, axes: Sequence[Axis], shape: Sequence[int]) -> list[Axis]:
    """Return the axes after a view to ``shape``.

    Both shapes fall into blocks of equal products. In each block dimensions are merged, then
    split.
    """
    single = coupling.constant(1, SINGLE)
    result: list[Axis] = [single] * len(shape)
    if 0 in shape:
        return [coupling.constant(size) for size in shape]
    old = [axis for axis in axes if axis.size != 1]
    new = [position for position, size in enumerate(shape) if size != 1]
    start = 0
    while old:
        taken, placed = 1, 1
        left, right = old[0].size, shape[new[start]]
        while left != right:
            if left < right:
                left *= old[taken].size
                taken += 1
            else:
                right *= shape[new[start + placed]]
                placed += 1
        block, old = old[:taken], old[taken:]
        positions = new[start : start + placed]
        start += placed
        parts = split(coupling, merge(coupling, block), [shape[p] for p in positions])
        for position, part in zip(positions, parts, strict=True):
            result[position] = part
    return result


def merge(coupling: Coupling, block: Sequence[Axis]) -> Axis:
    """Return the axis that a row-major merge of ``block`` makes."""
    if len(block) == 1:
        return block[0]
    free = [i for i, axis in enumerate(block) if not coupling.is_constant(axis)]
    total = int(np.prod([axis.size for axis in block]))
    if not free:
        return coupling.pass_mark(coupling.resized(block[0], total), block)
    if len(free) > 1:
        # Which of them will stay is not known before the walk has ended: walk again then.
        coupling.ambiguous = True
        merged = np.full(total, coupling.reason(coupling.why('two free dimensions are merged')))
        coupling.remember_factors(merged, tuple(block))
        return merged
    axis = block[free[0]]
    before = int(np.prod([a.size for a in block[: free[0]]], dtype=np.int64))
    after = int(np.prod([a.size for a in block[free[0] + 1 :]], dtype=np.int64))
    merged = np.tile(np.repeat(axis, after), before)
    coupling.remember_factors(merged, tuple(block))
    return merged


def split(coupling: Coupling, axis: Axis, sizes: Sequence[int]) -> list[Axis]:
    """Return the axes that a row-major split of ``axis`` into ``sizes`` makes.

    One dimension stays free; along the others the positions are coupled, for what remains after a
    cut must be a rectangle again.
    """
    if len(sizes) == 1:
        return [axis]
    if coupling.is_constant(axis):
        return [coupling.resized(axis, size) for size in sizes]
    factors = coupling.factors_of(axis)
    if factors is not None and [f.size for f in factors] == list(sizes):
        return list(factors)
    grid = axis.reshape(sizes)
    key = coupling.next_split()
    free = coupling.preferred.get(key, _free_dimension(grid))
    coupling.split_at[key] = free
    rows = np.moveaxis(grid, free, -1).reshape(-1, sizes[free])
    kept = rows[0]
    for row in rows[1:]:
        if not np.array_equal(row, kept):
            kept = coupling.couple(kept, row)
    if kept.size and (kept < 0).all():
        kept = coupling.resized(kept, kept.size)
    parts = (kept if i == free else coupling.constant(size) for i, size in enumerate(sizes))
    return [coupling.mark_part(part, key, i) for i, part in enumerate(parts)]


def _free_dimension(grid: Axis) -> int:
    """Choose the dimension that stays free: one that already varies alone, else the largest."""
    varies = [i for i in range(grid.ndim) if not (grid == np.take(grid, [0], axis=i)).all()]
    if len(varies) == 1:
        return varies[0]
    return max(range(grid.ndim), key=lambda i: (grid.shape[i], i))


@rule('permute', 'permute_copy')
def permute(coupling: Coupling, operation: Operation) -> None:
    axes = coupling.axes(first_tensor(operation))
    order = wrap_all(operation.args[1], len(axes))
    coupling.assign(operation.outputs[0], (axes[i] for i in order))


@rule('transpose', 'transpose_copy', 'swapaxes')
def transpose(coupling: Coupling, operation: Operation) -> None:
    axes = list(coupling.axes(first_tensor(operation)))
    if axes:
        i, j = (wrap(dim, len(axes)) for dim in operation.args[1:3])
        axes[i], axes[j] = axes[j], axes[i]
    coupling.assign(operation.outputs[0], axes)


@rule('t', 't_copy', 'numpy_T', 'mT')
def t(coupling: Coupling, operation: Operation) -> None:
    coupling.assign(operation.outputs[0], reversed(coupling.axes(first_tensor(operation))))


@rule('movedim')
def movedim(coupling: Coupling, operation: Operation) -> None:
    axes = list(coupling.axes(first_tensor(operation)))
    sources = wrap_all(operation.args[1], len(axes))
    targets = wrap_all(operation.args[2], len(axes))
    moved = {target: axes[source] for source, target in zip(sources, targets, strict=True)}
    rest = iter(axis for i, axis in enumerate(axes) if i not in sources)
    coupling.assign(
        operation.outputs[0], (moved[i] if i in moved else next(rest) for i in range(len(axes)))
    )


@rule('unsqueeze', 'unsqueeze_copy')
def unsqueeze(coupling: Coupling, operation: Operation) -> None:
    axes = list(coupling.axes(first_tensor(operation)))
    dim = wrap(operation.args[1], len(axes) + 1)
    axes.insert(dim, coupling.constant(1))
    coupling.assign(operation.outputs[0], axes)


@rule('squeeze', 'squeeze_copy')
def squeeze(coupling: Coupling, operation: Operation) -> None:
    axes = coupling.axes(first_tensor(operation))
    dims = wrap_all(argument(operation, 1, 'dim'), len(axes))
    coupling.assign(
        operation.outputs[0],
        (axis for i, axis in enumerate(axes) if i not in dims or axis.size != 1),
    )


@rule('expand', 'expand_copy', 'expand_as')
def expand(coupling: Coupling, operation: Operation) -> None:
    axes = coupling.axes(first_tensor(operation))
    output = operation.outputs[0]
    shift = output.dim() - len(axes)
    result = []
    for position, size in enumerate(output.shape):
        axis = axes[position - shift] if position >= shift else None
        widened = axis is None or axis.size != size
        result.append(coupling.fresh(size) if widened or axis is None else axis)
    coupling.assign(output, result)


@rule('repeat', 'tile')
def repeat(coupling: Coupling, operation: Operation) -> None:
    axes = coupling.axes(first_tensor(operation))
    output = operation.outputs[0]
    shift = output.dim() - len(axes)
    result = []
    for position, size in enumerate(output.shape):
        if position < shift:
            result.append(coupling.fresh(size))
            continue
        axis = axes[position - shift]
        if axis.size == size or (coupling.is_constant(axis) and axis.size != 1):
            result.append(axis if axis.size == size else coupling.constant(size))
        elif axis.size == 1:
            result.append(coupling.fresh(size))
        else:
            result.append(np.tile(axis, size // axis.size))
    coupling.assign(output, result)


@rule('repeat_interleave')
def repeat_interleave(coupling: Coupling, operation: Operation) -> None:
    x = first_tensor(operation)
    output = operation.outputs[0]
    repeats, dim = argument(operation, 1, 'repeats'), argument(operation, 2, 'dim')
    axes = list(coupling.axes(x))
    if not isinstance(repeats, int) or dim is None:
        for axis in axes:
            coupling.fix(axis, 'channels are repeated by a table')
        coupling.assign(output, (coupling.constant(size) for size in output.shape))
        return
    dim = wrap(dim, len(axes))
    axis = axes[dim]
    axes[dim] = (
        coupling.constant(axis.size * repeats)
        if coupling.is_constant(axis)
        else np.repeat(axis, repeats)
    )
    coupling.assign(output, axes)


@rule('flip')
def flip(coupling: Coupling, operation: Operation) -> None:
    axes = coupling.axes(first_tensor(operation))
    dims = wrap_all(operation.args[1], len(axes))
    coupling.assign(
        operation.outputs[0],
        (
            axis[::-1] if i in dims and not coupling.is_constant(axis) else axis
            for i, axis in enumerate(axes)
        ),
    )


@rule('roll')
def roll(coupling: Coupling, operation: Operation) -> None:
    axes = coupling.axes(first_tensor(operation))
    for dim in wrap_all(argument(operation, 2, 'dims'), len(axes)):
        coupling.fix(axes[dim], 'channels are rolled by a fixed distance')
    coupling.assign(operation.outputs[0], axes)


@rule('view_as_real', 'view_as_complex')
def complex_view(coupling: Coupling, operation: Operation) -> None:
    axes = coupling.axes(first_tensor(operation))
    output = operation.outputs[0]
    if output.dim() > len(axes):
        coupling.assign(output, (*axes, coupling.constant(2, INNER)))
    else:
        coupling.fix(axes[-1], 'real and imaginary part')
        coupling.assign(output, axes[:-1])
