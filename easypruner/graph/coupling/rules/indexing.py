"""Rules for operations that look entries up by index."""

from __future__ import annotations

import torch
from torch import Tensor

from easypruner.graph.coupling.coupling import Axis, Coupling
from easypruner.graph.coupling.rules import rule
from easypruner.graph.coupling.rules.arguments import argument, first_tensor, wrap
from easypruner.graph.recording.tape import Operation

LOOKED_UP = 'entries are looked up by their position'


@rule('embedding')
def embedding(coupling: Coupling, operation: Operation) -> None:
    weight, indices = operation.args[:2]
    rows, width = coupling.axes(weight)
    coupling.use(weight, 'embedding.weight')
    coupling.fix(rows, LOOKED_UP)
    coupling.assign(operation.outputs[0], (*coupling.axes(indices), width))


@rule('index_select', 'take_along_dim')
def index_select(coupling: Coupling, operation: Operation) -> None:
    x = first_tensor(operation)
    axes = list(coupling.axes(x))
    dim = wrap(argument(operation, 1, 'dim', 0), x.dim())
    coupling.fix(axes[dim], LOOKED_UP)
    axes[dim] = coupling.constant(operation.outputs[0].shape[dim])
    coupling.assign(operation.outputs[0], axes)


@rule('gather')
def gather(coupling: Coupling, operation: Operation) -> None:
    x, index = operation.args[0], operation.args[2]
    dim = wrap(operation.args[1], x.dim())
    axes, positions = list(coupling.axes(x)), coupling.axes(index)
    coupling.fix(axes[dim], LOOKED_UP)
    for i, (axis, other) in enumerate(zip(axes, positions, strict=True)):
        if i != dim and axis.size == other.size:
            axes[i] = coupling.couple(axis, other)
        else:
            coupling.fix(axis, LOOKED_UP)
            axes[i] = other
    coupling.assign(operation.outputs[0], axes)


@rule('index', '_unsafe_index')
def index(coupling: Coupling, operation: Operation) -> None:
    x, indices = operation.args[:2]
    output = operation.outputs[0]
    axes = coupling.axes(x)
    if any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in indices):
        for axis in axes:
            coupling.fix(axis, LOOKED_UP)
        coupling.assign(output, (coupling.constant(size) for size in output.shape))
        return
    looked = [i for i, given in enumerate(indices) if given is not None]
    for dim in looked:
        coupling.fix(axes[dim], LOOKED_UP)
    width = max(indices[i].dim() for i in looked)
    adjacent = looked == list(range(looked[0], looked[-1] + 1))
    start = looked[0] if adjacent else 0
    inserted = [coupling.constant(size) for size in output.shape[start : start + width]]
    rest: list[Axis] = [axis for i, axis in enumerate(axes) if i not in looked]
    coupling.assign(output, (*rest[:start], *inserted, *rest[start:]))


@rule('index_put', '_index_put_impl', '_unsafe_index_put', 'scatter', 'scatter_add',
      'scatter_reduce', 'index_add', 'index_copy', 'masked_scatter', 'index_fill',
      'put')  # fmt: skip
def write_at(coupling: Coupling, operation: Operation) -> None:
    x = first_tensor(operation)
    values = [v for v in operation.args[1:] if isinstance(v, Tensor)]
    for tensor in (x, *values):
        for axis in coupling.axes(tensor):
            coupling.fix(axis, 'entries are written by their position')
    output = operation.outputs[0]
    if output is not x:
        coupling.assign(output, coupling.axes(x))


@rule('nonzero', 'masked_select', 'unique_consecutive', '_unique2', 'nms', 'bincount',
      'searchsorted', 'bucketize', 'one_hot', 'multinomial', 'histc')  # fmt: skip
def by_value(coupling: Coupling, operation: Operation) -> None:
    for value in operation.args:
        if isinstance(value, Tensor):
            for axis in coupling.axes(value):
                coupling.fix(axis, 'the shape of the result depends on values')
    for output in operation.outputs:
        coupling.assign(output, (coupling.constant(size) for size in output.shape))
