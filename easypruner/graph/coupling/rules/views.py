"""Rules for operations that rearrange dimensions: view, permute, expand, squeeze, flip."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch

from easypruner.graph.coupling.axes import MERGED, SHARED, SINGLE, SPLIT, Axis, Part
from easypruner.graph.coupling.rules.registration import Coupling, Operation, rule
from easypruner.graph.coupling.splits import WHOLE

_NARROWED = 'several dimensions are merged, of which another one was chosen to lose channels'


@rule('view', '_unsafe_view', 'reshape', '_reshape_alias', 'unflatten', 'flatten',
      'view_copy', '_reshape_copy')  # fmt: skip
def view(coupling: Coupling, operation: Operation) -> None:
    """Merge and split axes as the new shape requires."""
    axes, output = coupling.axes_of(operation.tensors[0]), operation.output
    coupling.assign(output, regroup(coupling, axes, output.shape))


def regroup(coupling: Coupling, axes: Sequence[Axis], shape: Sequence[int]) -> list[Axis]:
    """Return the axes after a view to another shape.

    Both shapes consist of blocks of equal products. In each block, dimensions are merged and then
    split.
    """
    if 0 in shape:
        return [coupling.make_constant(size) for size in shape]
    result = [coupling.make_constant(1, SINGLE)] * len(shape)
    old = [axis for axis in axes if axis.size != 1]
    new = [position for position, size in enumerate(shape) if size != 1]
    for before, after in _blocks([axis.size for axis in old], [shape[p] for p in new]):
        positions = new[after]
        parts = split(coupling, merge(coupling, old[before]), [shape[p] for p in positions])
        for position, part in zip(positions, parts, strict=True):
            result[position] = part
    return result


def _blocks(old: Sequence[int], new: Sequence[int]) -> Iterator[tuple[slice, slice]]:
    """Yield the smallest blocks of two shapes, without ones, that have equal products."""
    start = placed = 0
    while start < len(old):
        stop, end = start + 1, placed + 1
        left, right = old[start], new[placed]
        while left != right:
            if left < right:
                left *= old[stop]
                stop += 1
            else:
                right *= new[end]
                end += 1
        yield slice(start, stop), slice(placed, end)
        start, placed = stop, end


def merge(coupling: Coupling, block: Sequence[Axis]) -> Axis:
    """Return the axis that a row-major merge of several axes makes."""
    if len(block) == 1:
        return block[0]
    sizes = [axis.size for axis in block]
    free = [i for i, axis in enumerate(block) if not axis.is_constant]
    if not free:
        merged = block[0].resized(math.prod(sizes))
        parts = [axis.part for axis in block if axis.part is not None]
        known = tuple(block) if any(axis.part or axis.factors for axis in block) else ()
        return replace(merged, part=parts[0] if len(parts) == 1 else None, factors=known)
    if len(free) == 1:
        return _spread(block, free[0])
    key = coupling.splits.merge_key(sizes)
    if key in coupling.splits.narrowed:
        kept = max(free, key=lambda i: sizes[i])
        for i in free:
            for axis in block[i].dimensions if i != kept else ():
                coupling.freeze(axis, _NARROWED)
        return _spread(block, kept)
    # Which of them will stay is known at the end of this propagation, and used by the next one.
    # The axis is frozen but not constant, so that a split restores its factors.
    coupling.is_ambiguous = True
    coupling.splits.loose += [copy for axis in block for copy in axis.copies]
    reason = coupling.splits.merged[key] = coupling.explain(MERGED)
    frozen = coupling.make_constant(math.prod(sizes), reason)
    return Axis(frozen.ids, factors=tuple(block))


def _spread(block: Sequence[Axis], number: int) -> Axis:
    """Return the axis that a merge of several axes makes, with the ids of one of them."""
    sizes = [axis.size for axis in block]
    repeated = block[number].repeated(math.prod(sizes[number + 1 :]))
    return Axis(repeated.tiled(math.prod(sizes[:number])).ids, factors=tuple(block))


def split(coupling: Coupling, axis: Axis, sizes: Sequence[int]) -> list[Axis]:
    """Return the axes that a row-major split of an axis makes.

    One of them stays free. Along the others all positions are coupled, because a cut must leave a
    rectangle.
    """
    if len(sizes) == 1:
        return [axis]
    if axis.factors and [factor.size for factor in axis.factors] == list(sizes):
        return list(axis.factors)
    if axis.is_constant:
        parts = [axis.resized(size) for size in sizes]
        # Heads may be split again, as into pairs. If they may go, they are heads all the same.
        if axis.part is None or coupling.splits.attention == 'width':
            return parts
        return [part.marked(axis.part) for part in parts]
    merged = [factor for factor in axis.dimensions if factor.size != 1]
    if len(list(_blocks([factor.size for factor in merged], sizes))) > 1:
        return regroup(coupling, merged, sizes)
    grid = axis.ids.reshape(sizes)
    key, free = coupling.splits.choose(grid)
    if free == WHOLE:
        coupling.freeze(axis, SHARED)
        return [coupling.make_constant(size).marked(Part(key, i)) for i, size in enumerate(sizes)]
    rows = Axis(np.moveaxis(grid, free, -1).reshape(-1))
    kept = coupling.couple_runs(rows, rows.size // sizes[free])
    stays = coupling.explain(SPLIT)
    return [
        (kept if i == free else coupling.make_constant(size, stays)).marked(Part(key, i))
        for i, size in enumerate(sizes)
    ]


@rule('permute', 'permute_copy', 'transpose', 'transpose_copy', 'swapaxes', 't', 't_copy',
      'numpy_T', 'mT', 'movedim')  # fmt: skip
def permute(coupling: Coupling, operation: Operation) -> None:
    """Hand the axes on in another order, which a tensor of sizes 0, 1, 2, ... shows."""
    x, *arguments = operation.args
    axes = coupling.axes_of(x)
    numbered = torch.empty(list(range(len(axes))), device='meta')
    order = operation.func(numbered, *arguments, **operation.kwargs).shape
    coupling.assign(operation.output, [axes[number] for number in order])


@rule('unsqueeze', 'unsqueeze_copy')
def unsqueeze(coupling: Coupling, operation: Operation) -> None:
    """Hand the axes on, with a new one of a single index."""
    axes = list(coupling.axes_of(operation.tensors[0]))
    axes.insert(operation.argument('dim') % (len(axes) + 1), coupling.make_constant(1))
    coupling.assign(operation.output, axes)


@rule('squeeze', 'squeeze_copy')
def squeeze(coupling: Coupling, operation: Operation) -> None:
    """Hand the axes on, without those of a single index."""
    axes = coupling.axes_of(operation.tensors[0])
    dims = operation.dims()
    kept = [axis for i, axis in enumerate(axes) if i not in dims or axis.size != 1]
    coupling.assign(operation.output, kept)


@rule('expand', 'expand_copy', 'expand_as', 'repeat', 'tile')
def repeat(coupling: Coupling, operation: Operation) -> None:
    """Repeat the axes. One of a single index becomes free, and follows what it is coupled with."""
    axes = coupling.axes_of(operation.tensors[0])
    shape = operation.output.shape
    added = len(shape) - len(axes)
    result = [make_copies(coupling, size) for size in shape[:added]]
    for axis, size in zip(axes, shape[added:], strict=True):
        if axis.size == size:
            result.append(axis)
        elif axis.size == 1:
            result.append(make_copies(coupling, size))
        else:
            result.append(axis.tiled(size // axis.size))
    coupling.assign(operation.output, result)


def make_copies(coupling: Coupling, size: int) -> Axis:
    """Return an axis of copies of one entry. It stays once it is known that no unit has it."""
    key = coupling.splits.next_key()
    if key in coupling.splits.fixed:
        return coupling.make_constant(size)
    return replace(coupling.make_free(size), copy=key)


@rule('repeat_interleave')
def repeat_entries(coupling: Coupling, operation: Operation) -> None:
    """Repeat each index of an axis; if a table says how often, freeze all axes."""
    x, output = operation.tensors[0], operation.output
    repeats, dim = operation.argument('repeats'), operation.argument('dim')
    if not isinstance(repeats, int) or dim is None:
        coupling.freeze_tensor(x, 'channels are repeated by a table')
        coupling.assign_constants(output)
        return
    axes = list(coupling.axes_of(x))
    axes[dim] = merge(coupling, [axes[dim], make_copies(coupling, repeats)])
    coupling.assign(output, axes)


@rule('flip')
def flip(coupling: Coupling, operation: Operation) -> None:
    """Hand the axes on, some of them backwards."""
    axes = coupling.axes_of(operation.tensors[0])
    dims = operation.dims('dims')
    flipped = [axis[::-1] if i in dims else axis for i, axis in enumerate(axes)]
    coupling.assign(operation.output, flipped)


@rule('roll')
def roll(coupling: Coupling, operation: Operation) -> None:
    """Freeze the axes that are rolled: the distance is a number in the code."""
    axes = coupling.axes_of(operation.tensors[0])
    for dim in operation.dims('dims'):
        coupling.freeze(axes[dim], 'channels are rolled by a fixed distance')
    coupling.assign(operation.output, axes)


@rule('resize')
def resize(coupling: Coupling, operation: Operation) -> None:
    """Freeze all axes, unless the tensor has the size already."""
    x, size = operation.args[:2]
    if [axis.size for axis in coupling.axes_of(x)] != list(size):
        coupling.freeze_tensor(x, 'a tensor gets another size in place')
        coupling.assign_constants(operation.output)


@rule('view_as_real', 'view_as_complex')
def view_complex(coupling: Coupling, operation: Operation) -> None:
    """Hand the axes on. The one for real and imaginary part stays.

    Complex numbers need even strides. So channels in whose memory they lie go in pairs.
    """
    x, output = operation.tensors[0], operation.output
    axes = coupling.axes_of(x)
    if output.dim() > len(axes):
        coupling.assign(output, (*axes, coupling.make_constant(2)))
        return
    coupling.freeze(axes[-1], 'real and imaginary part')
    coupling.assign(output, axes[:-1])
    *_, base = coupling.memory.with_bases(x)
    if base.numel() != x.numel() and base.dim() and base.shape[-1] % 2 == 0:
        coupling.couple_within(coupling.axes_of(base)[-1], 2)


@rule('diagonal', 'diagonal_copy')
def take_diagonal(coupling: Coupling, operation: Operation) -> None:
    """Freeze the two dimensions of the diagonal, and hand the others on before a new one."""
    axes, output = list(coupling.axes_of(operation.tensors[0])), operation.output
    dims = {operation.argument(name) % len(axes) for name in ('dim1', 'dim2')}
    for dim in dims:
        coupling.freeze(axes[dim], 'the diagonal of a square')
    rest = [axis for dim, axis in enumerate(axes) if dim not in dims]
    coupling.assign(output, (*rest, coupling.make_constant(output.shape[-1])))


@rule('rot90')
def rotate(coupling: Coupling, operation: Operation) -> None:
    """Freeze the two dimensions that are rotated, and hand the others on."""
    axes, output = list(coupling.axes_of(operation.tensors[0])), operation.output
    for dim in operation.dims('dims'):
        coupling.freeze(axes[dim], 'rotated by a right angle')
        axes[dim] = coupling.make_constant(output.shape[dim])
    coupling.assign(output, axes)
