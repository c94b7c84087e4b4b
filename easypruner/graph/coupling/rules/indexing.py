"""Rules for operations that look entries up by index."""

from __future__ import annotations

import torch
from torch import Tensor

from easypruner.graph.coupling.rules.pointwise import drop_frozen
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
    x, indices = operation.args[:2]
    output = operation.output
    if any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in indices):
        coupling.freeze_tensor(x, LOOKED_UP)
        coupling.assign_constants(output)
        return
    axes = coupling.axes_of(x)
    looked = [i for i, given in enumerate(indices) if given is not None]
    for dim in looked:
        coupling.freeze(axes[dim], LOOKED_UP)
    width = max(indices[i].dim() for i in looked)
    adjacent = looked == list(range(looked[0], looked[-1] + 1))
    start = looked[0] if adjacent else 0
    inserted = [coupling.make_constant(size) for size in output.shape[start : start + width]]
    rest = [axis for i, axis in enumerate(axes) if i not in looked]
    coupling.assign(output, (*rest[:start], *inserted, *rest[start:]))


@rule('index_put', '_index_put_impl', '_unsafe_index_put', 'scatter', 'scatter_add',
      'scatter_reduce', 'index_add', 'index_copy', 'masked_scatter', 'index_fill',
      'put')  # fmt: skip
def write_entries(coupling: Coupling, operation: Operation) -> None:
    """Freeze all arguments: their positions decide which entries are written."""
    x = operation.tensors[0]
    for value in operation.args:
        if isinstance(value, Tensor):
            coupling.freeze_tensor(value, 'entries are written by their position')
    if operation.output is not x:
        coupling.assign(operation.output, coupling.axes_of(x))


@rule('nonzero', 'masked_select', 'unique_consecutive', '_unique2', 'torchvision::nms',
      'bincount', 'searchsorted', 'bucketize', 'one_hot', 'multinomial', 'histc')  # fmt: skip
def pick_by_value(coupling: Coupling, operation: Operation) -> None:
    """Freeze all arguments: the shape of the result depends on their values."""
    for tensor in operation.tensors:
        coupling.freeze_tensor(tensor, 'the shape of the result depends on values')
    for output in operation.outputs:
        coupling.assign_constants(output)
