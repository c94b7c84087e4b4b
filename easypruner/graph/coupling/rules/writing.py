"""Rules for operations that write entries at positions that a tensor says."""

from __future__ import annotations

import math

from torch import Tensor

from easypruner.graph.coupling.rules.indexing import (
    count_uniform,
    is_mask,
    keep_beside_rows,
    pick,
    picks_rows,
)
from easypruner.graph.coupling.rules.pointwise import broadcast
from easypruner.graph.coupling.rules.registration import Coupling, Operation, rule
from easypruner.graph.coupling.rules.views import regroup

WRITTEN = 'entries are written by their position'


@rule('index_add', 'index_copy', 'index_fill', 'index_reduce')
def write_slices(coupling: Coupling, operation: Operation) -> None:
    """Freeze the dimension in which slices are written; couple the others with the source."""
    x, source = operation.args[0], operation.argument('source')
    coupling.freeze_tensor(operation.argument('index'), WRITTEN)
    _write_beside(coupling, operation, [x] if source is None else [x, source])


@rule('scatter', 'scatter_add', 'scatter_reduce')
def scatter(coupling: Coupling, operation: Operation) -> None:
    """Freeze the dimension in which entries are written; couple the others of all arguments."""
    source = operation.argument('src')
    table = operation.argument('index')
    tensors = [operation.args[0], table]
    _write_beside(coupling, operation, tensors if source is None else [*tensors, source], table)


def _write_beside(
    coupling: Coupling, operation: Operation, tensors: list[Tensor], table: Tensor | None = None
) -> None:
    """Freeze the dimension of an operation; couple the others of several tensors.

    Where sizes differ, a part of the larger tensor is meant, so that these stay as well. If a table
    has positions in another axis, entries are written in one that loses the same indices.
    """
    known = None if table is None else coupling.positions.of(table)
    written = operation.dims()
    result, pairs = [], []
    for dim, axes in enumerate(zip(*map(coupling.axes_of, tensors), strict=True)):
        if dim in written and known is not None and table is not None:
            coupling.look_up(axes[0], table, WRITTEN)
            for axis in axes[1:]:
                coupling.freeze(axis, WRITTEN)
            result.append(axes[0])
        elif dim in written or len({axis.size for axis in axes}) > 1:
            for axis in axes:
                coupling.freeze(axis, WRITTEN)
            result.append(axes[0])
        else:
            result.append(coupling.couple_all(axes))
            pairs += [(axes[0], axis) for axis in axes[1:]]
    if coupling.has_axes(operation.output):
        coupling.note_writing(operation.output, pairs)
    else:
        coupling.assign(operation.output, result)


@rule('index_put', '_index_put_impl', '_unsafe_index_put')
def write_picked(coupling: Coupling, operation: Operation) -> None:
    """Freeze the dimensions that are indexed by tensors; couple the others with the values."""
    x, tables, values = operation.args[:3]
    if picks_rows(tables):
        _write_picked_rows(coupling, operation)
        return
    rest, start = pick(coupling, operation)
    for table in tables:
        if table is not None:
            coupling.freeze_tensor(table, WRITTEN)
    # The values are broadcast to the shape of the entries that are picked.
    count = max(1 if is_mask(table) else table.dim() for table in tables if table is not None)
    picked = [*rest[:start], *([None] * count), *rest[start:]]
    pairs = []
    for axis, other in zip(reversed(coupling.axes_of(values)), reversed(picked), strict=False):
        if other is None:
            coupling.freeze(axis, WRITTEN)
        elif axis.size != 1:
            coupling.couple(axis, other)
            pairs.append((other, axis))
    if not coupling.has_axes(operation.output):
        coupling.assign(operation.output, coupling.axes_of(x))
    coupling.note_writing(operation.output, pairs)


def _write_picked_rows(coupling: Coupling, operation: Operation) -> None:
    """Couple the dimensions of the rows that a mask picks with those of the values."""
    x, tables, values = operation.args[:3]
    mask = next(table for table in tables if table is not None)
    start = tables.index(mask)
    stop = start + mask.dim()
    axes, count = coupling.axes_of(x), count_uniform(mask, mask.shape)
    rows = keep_beside_rows(coupling, axes[start:stop], count, mask, WRITTEN)
    row = [axis.size for axis in rows]
    written = list(coupling.axes_of(values))
    at = len(written) - 1 - (x.dim() - stop)
    pairs = []
    if at >= 0 and written[at].size > 1:
        number = written[at].size // math.prod(row)
        picked, *given = regroup(coupling, [written[at]], (number, *row))
        coupling.freeze(picked, WRITTEN)
        pairs += list(zip(rows, given, strict=True))
    around = [*axes[:start], None, *axes[stop:]]
    for axis, other in zip(reversed(written), reversed(around), strict=False):
        if other is not None and axis.size != 1:
            pairs.append((other, axis))
    for axis, other in pairs:
        coupling.couple(axis, other)
    if not coupling.has_axes(operation.output):
        coupling.assign(operation.output, axes)
    coupling.note_writing(operation.output, pairs)


@rule('masked_scatter')
def write_rows(coupling: Coupling, operation: Operation) -> None:
    """Couple the dimensions of whole rows, if the mask says which rows are written.

    A network for images and text writes the states of image patches so. All other dimensions stay.
    """
    x, mask, source = operation.args
    output = operation.output
    count = count_uniform(mask, output.shape)
    row = output.shape[output.dim() - count :]
    if not count or source.numel() % row.numel():
        write_entries(coupling, operation)
        return
    axes = broadcast(coupling, map(coupling.axes_of, (x, mask)), output.dim())
    given = coupling.axes_of(source)
    if source.shape[-count:] != row:
        given = tuple(regroup(coupling, given, (source.numel() // row.numel(), *row)))
    rows = keep_beside_rows(coupling, axes, count, mask, WRITTEN)
    for axis in given[:-count]:
        coupling.freeze(axis, WRITTEN)
    pairs = list(zip(rows, given[-count:], strict=True))
    written = [coupling.couple(axis, other) for axis, other in pairs]
    if coupling.has_axes(output):
        coupling.note_writing(output, pairs)
    else:
        coupling.assign(output, (*axes[:-count], *written))


@rule('put')
def write_entries(coupling: Coupling, operation: Operation) -> None:
    """Freeze all arguments: their positions decide which entries are written."""
    for tensor in operation.tensors:
        coupling.freeze_tensor(tensor, WRITTEN)
    if not coupling.has_axes(operation.output):
        coupling.assign_constants(operation.output, coupling.explain(WRITTEN))
