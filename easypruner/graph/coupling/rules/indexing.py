"""Rules for operations that look entries up by index."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from easypruner.graph.coupling.axes import Axis
from easypruner.graph.coupling.rules.pointwise import broadcast, drop
from easypruner.graph.coupling.rules.registration import Coupling, Operation, rule
from easypruner.graph.coupling.rules.views import merge

LOOKED_UP = 'entries are looked up by their position'


@rule('embedding')
def embed(coupling: Coupling, operation: Operation) -> None:
    """Freeze the rows of the table, which are looked up by number. Hand its width on."""
    weight, indices = operation.args[:2]
    rows, width = coupling.axes_of(weight)
    coupling.note_use(weight, 'embedding.weight')
    coupling.look_up(rows, indices, LOOKED_UP)
    coupling.assign(operation.output, (*coupling.axes_of(indices), width))


@rule('embedding_renorm_')
def shorten_rows(coupling: Coupling, operation: Operation) -> None:
    """Mix the width of a table: the rows that are looked up become no longer than a number."""
    weight, indices = operation.args[:2]
    rows, width = coupling.axes_of(weight)
    coupling.look_up(rows, indices, LOOKED_UP)
    coupling.note_mixing(width)
    coupling.assign(operation.output, (rows, width))


@rule('_embedding_bag', '_embedding_bag_forward_only')
def embed_bags(coupling: Coupling, operation: Operation) -> None:
    """Freeze the rows of the table, and all that says which belong to a bag. Hand the width on."""
    weight, *others = operation.tensors
    rows, width = coupling.axes_of(weight)
    coupling.note_use(weight, 'embedding.weight')
    coupling.freeze(rows, LOOKED_UP)
    for tensor in others:
        coupling.freeze_tensor(tensor, LOOKED_UP)
    bags, *tables = operation.outputs
    coupling.assign(bags, (coupling.make_constant(bags.shape[0]), width))
    for table in tables:
        coupling.assign_constants(table)


@rule('_pack_padded_sequence')
def pack_sequences(coupling: Coupling, operation: Operation) -> None:
    """Put the steps of all sequences, without those that pad, into one axis; hand on the others."""
    x, lengths = operation.tensors[:2]
    batch, steps, *features = coupling.axes_of(x)
    for axis in (batch, steps, *coupling.axes_of(lengths)):
        coupling.freeze(axis, LOOKED_UP)
    packed, counts = operation.outputs
    coupling.assign(packed, (coupling.make_constant(packed.shape[0]), *features))
    coupling.assign_constants(counts)


@rule('isin')
def find_members(coupling: Coupling, operation: Operation) -> None:
    """Hand the axes of the entries on. The set in which they are looked up stays."""
    elements = operation.argument('elements')
    for tensor in operation.tensors:
        if tensor is not elements:
            coupling.freeze_tensor(tensor, LOOKED_UP)
    if isinstance(elements, Tensor):
        coupling.assign(operation.output, coupling.axes_of(elements))
    else:
        coupling.assign_constants(operation.output)


@rule('index_select', 'take_along_dim')
def select_indices(coupling: Coupling, operation: Operation) -> None:
    """Freeze the dimension along which entries are looked up; hand the others on."""
    x, table = operation.tensors[:2]
    for dim in operation.dims():
        coupling.look_up(coupling.axes_of(x)[dim], table, LOOKED_UP)
    drop(coupling, operation, operation.dims())
    _keep_matrices(coupling, operation)


@rule('gather')
def gather(coupling: Coupling, operation: Operation) -> None:
    """Freeze the dimension of the look-up; couple the others with those of the index."""
    (dim,) = operation.dims()
    axes, positions = (list(coupling.axes_of(operation.args[i])) for i in (0, 2))
    coupling.look_up(axes[dim], operation.args[2], LOOKED_UP)
    for i, (axis, other) in enumerate(zip(axes, positions, strict=True)):
        if i != dim and axis.size == other.size:
            axes[i] = coupling.couple(axis, other)
        else:
            coupling.freeze(axis, LOOKED_UP)
            axes[i] = other
    coupling.assign(operation.output, axes)


@rule('index', '_unsafe_index')
def index(coupling: Coupling, operation: Operation) -> None:
    """Freeze the dimensions that are indexed by tensors; hand the others on."""
    output = operation.output
    tables = [table for table in operation.args[1] if table is not None]
    if picks_rows(tables):
        _pick_rows(coupling, operation, tables[0])
        return
    rest, start = pick(coupling, operation)
    count = output.dim() - len(rest)
    if any(map(is_mask, tables)):
        inserted = [coupling.make_constant(size) for size in output.shape[start : start + count]]
    else:
        inserted = broadcast(coupling, map(coupling.axes_of, tables), count)
    coupling.assign(output, (*rest[:start], *inserted, *rest[start:]))
    _keep_matrices(coupling, operation)


def picks_rows(tables: Sequence[Tensor | None]) -> bool:
    """Return whether the tables of an index are one mask, which picks whole rows."""
    given = [table for table in tables if table is not None]
    if len(given) != 1 or not is_mask(given[0]):
        return False
    return count_uniform(given[0], given[0].shape) > 0


def _pick_rows(coupling: Coupling, operation: Operation, mask: Tensor) -> None:
    """Hand on the dimensions of the rows that a mask picks, and those that it does not address."""
    start = operation.args[1].index(mask)
    stop = start + mask.dim()
    axes = coupling.axes_of(operation.args[0])
    count = count_uniform(mask, mask.shape)
    rows = keep_beside_rows(coupling, axes[start:stop], count, mask, LOOKED_UP)
    picked = _join_rows(coupling, rows, operation.output.shape[start])
    coupling.assign(operation.output, (*axes[:start], picked, *axes[stop:]))


@rule('masked_select')
def select_rows(coupling: Coupling, operation: Operation) -> None:
    """Hand on the dimensions of whole rows, if the mask says which rows are picked."""
    x, mask = operation.tensors
    shape = np.broadcast_shapes(x.shape, mask.shape)
    count = count_uniform(mask, shape)
    if not count:
        pick_by_value(coupling, operation)
        return
    axes = broadcast(coupling, map(coupling.axes_of, (x, mask)), len(shape))
    rows = keep_beside_rows(coupling, axes, count, mask, LOOKED_UP)
    coupling.assign(operation.output, [_join_rows(coupling, rows, operation.output.numel())])


def _join_rows(coupling: Coupling, rows: Sequence[Axis], size: int) -> Axis:
    """Return the axis of some rows that are put one after the other."""
    number = coupling.make_constant(size // math.prod(axis.size for axis in rows))
    return merge(coupling, [number, *rows]) if size else number


def count_uniform(mask: Tensor, shape: Sequence[int]) -> int:
    """Return along how many last dimensions a mask has the same entry for all indices.

    Such a mask picks whole rows: ``is_image.unsqueeze(-1).expand_as(states)``, or one that is
    broadcast to the shape.

    Args:
        mask: the mask.
        shape: the shape to which it is broadcast.
    """
    own = [0 if n == 1 else step for n, step in zip(mask.shape, mask.stride(), strict=True)]
    steps = [0] * (len(shape) - mask.dim()) + own
    count = 0
    while count < len(shape) and (shape[-1 - count] == 1 or steps[-1 - count] == 0):
        count += 1
    return count if math.prod(shape[len(shape) - count :]) > 1 else 0


def keep_beside_rows(
    coupling: Coupling, axes: Sequence[Axis], count: int, mask: Tensor, reason: str
) -> list[Axis]:
    """Freeze the dimensions in which a mask picks rows, and return those of the rows.

    Args:
        coupling: what is coupled.
        axes: the axes of the tensor from which the mask picks, or to which it is broadcast.
        count: the number of dimensions of a row.
        mask: the mask.
        reason: why the other dimensions stay.
    """
    known = coupling.axes_of(mask)
    for axis in (*axes[:-count], *known[:-count]):
        coupling.freeze(axis, reason)
    return broadcast(coupling, (axes[-count:], known[-count:]), count)


def _keep_matrices(coupling: Coupling, operation: Operation) -> None:
    """Note that matrices that are picked from a stack, such as those of experts, are weights."""
    x = operation.args[0]
    if x.dim() > 2:
        coupling.axes.derive_from(operation.output, x)


def pick(coupling: Coupling, operation: Operation) -> tuple[list[Axis], int]:
    """Freeze the dimensions of a tensor that tables of positions, or masks, address.

    Returns:
        The axes of its other dimensions, and the number of them behind which the dimensions of the
        tables are put.
    """
    x, tables = operation.args[:2]
    addressed: dict[int, Tensor] = {}
    dim = 0
    for table in tables:
        covered = table.dim() if table is not None and is_mask(table) else 1
        if table is not None:
            addressed |= dict.fromkeys(range(dim, dim + covered), table)
        dim += covered
    axes = coupling.axes_of(x)
    for dim, table in addressed.items():
        if is_mask(table) or not operation.name.endswith('index'):
            coupling.freeze(axes[dim], LOOKED_UP)
        else:
            coupling.look_up(axes[dim], table, LOOKED_UP)
    for table in tables:
        if table is not None and is_mask(table):
            coupling.freeze_tensor(table, LOOKED_UP)
    first = min(addressed)
    adjacent = list(addressed) == list(range(first, first + len(addressed)))
    rest = [axis for dim, axis in enumerate(axes) if dim not in addressed]
    return rest, first if adjacent else 0


def is_mask(table: Tensor) -> bool:
    """Return whether a tensor selects entries by true and false, not by their positions."""
    return table.dtype in (torch.bool, torch.uint8)


@rule('one_hot', 'bincount', 'histc')
def count_positions(coupling: Coupling, operation: Operation) -> None:
    """Hand on the axis in which positions are, if each of its indices has an entry or a count."""
    (x, *others), output = operation.tensors, operation.output
    axis, size = coupling.positions.of(x), output.shape[-1]
    in_order = operation.name != 'histc' or (
        operation.argument('min') == 0 and operation.argument('max') == size - 1
    )
    if axis is None or others or size != axis.size or not in_order:
        if axis is not None:
            coupling.freeze(axis, LOOKED_UP)
        pick_by_value(coupling, operation)
        return
    coupling.positions.use(axis)
    before = coupling.axes_of(x) if operation.name == 'one_hot' else ()
    coupling.assign(output, (*before, axis))


@rule('nonzero', 'unique_consecutive', '_unique2', 'torchvision::nms',
      'searchsorted', 'bucketize', 'multinomial', '_unique', 'unique_dim', 'unique_dim_consecutive',
      'nonzero_static', 'segment_reduce')  # fmt: skip
def pick_by_value(coupling: Coupling, operation: Operation) -> None:
    """Freeze all arguments: the shape of the result depends on their values."""
    for tensor in operation.tensors:
        coupling.freeze_tensor(tensor, 'the shape of the result depends on values')
    for output in operation.outputs:
        coupling.assign_constants(output)


@rule('_local_scalar_dense', 'is_nonzero', '_is_all_true', '_is_any_true', 'equal')
def read_values(coupling: Coupling, operation: Operation) -> None:
    """Freeze all arguments: code that reads their values may depend on which there are."""
    for tensor in operation.tensors:
        coupling.freeze_tensor(tensor, 'code reads the values')
    for output in operation.outputs:
        coupling.assign_constants(output)
