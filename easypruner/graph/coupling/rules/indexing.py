"""Rules for operations that look entries up by index."""

from __future__ import annotations

import torch
from torch import Tensor

from easypruner.graph.coupling.axes import Axis
from easypruner.graph.coupling.rules.pointwise import broadcast, drop_frozen
from easypruner.graph.coupling.rules.registration import Coupling, Operation, rule

LOOKED_UP = 'entries are looked up by their position'


@rule('embedding')
def embed(coupling: Coupling, operation: Operation) -> None:
    """Freeze the rows of the table, which are looked up by number. Hand its width on."""
    weight, indices = operation.args[:2]
    rows, width = coupling.axes_of(weight)
    coupling.note_use(weight, 'embedding.weight')
    coupling.freeze(rows, LOOKED_UP)
    coupling.assign(operation.output, (*coupling.axes_of(indices), width))


@rule('index_select', 'take_along_dim')
def select_indices(coupling: Coupling, operation: Operation) -> None:
    """Freeze the dimension along which entries are looked up; hand the others on."""
    drop_frozen(coupling, operation, operation.dims(), LOOKED_UP)
    _keep_matrices(coupling, operation)


@rule('gather')
def gather(coupling: Coupling, operation: Operation) -> None:
    """Freeze the dimension of the look-up; couple the others with those of the index."""
    (dim,) = operation.dims()
    axes, positions = (list(coupling.axes_of(operation.args[i])) for i in (0, 2))
    coupling.freeze(axes[dim], LOOKED_UP)
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
    rest, start = pick(coupling, operation)
    tables = [table for table in operation.args[1] if table is not None]
    count = output.dim() - len(rest)
    if any(map(is_mask, tables)):
        inserted = [coupling.make_constant(size) for size in output.shape[start : start + count]]
    else:
        inserted = broadcast(coupling, map(coupling.axes_of, tables), count)
    coupling.assign(output, (*rest[:start], *inserted, *rest[start:]))
    _keep_matrices(coupling, operation)


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
    addressed: list[int] = []
    dim = 0
    for table in tables:
        covered = table.dim() if table is not None and is_mask(table) else 1
        if table is not None:
            addressed += range(dim, dim + covered)
        dim += covered
    axes = coupling.axes_of(x)
    for dim in addressed:
        coupling.freeze(axes[dim], LOOKED_UP)
    for table in tables:
        if table is not None and is_mask(table):
            coupling.freeze_tensor(table, LOOKED_UP)
    adjacent = addressed == list(range(addressed[0], addressed[0] + len(addressed)))
    rest = [axis for dim, axis in enumerate(axes) if dim not in addressed]
    return rest, addressed[0] if adjacent else 0


def is_mask(table: Tensor) -> bool:
    """Return whether a tensor selects entries by true and false, not by their positions."""
    return table.dtype in (torch.bool, torch.uint8)


@rule('nonzero', 'masked_select', 'unique_consecutive', '_unique2', 'torchvision::nms',
      'bincount', 'searchsorted', 'bucketize', 'one_hot', 'multinomial', 'histc')  # fmt: skip
def pick_by_value(coupling: Coupling, operation: Operation) -> None:
    """Freeze all arguments: the shape of the result depends on their values."""
    for tensor in operation.tensors:
        coupling.freeze_tensor(tensor, 'the shape of the result depends on values')
    for output in operation.outputs:
        coupling.assign_constants(output)
