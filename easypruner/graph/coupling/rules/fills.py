"""Rules for operations that make tensors from nothing."""

from __future__ import annotations

from easypruner.graph.coupling.coupling import Coupling
from easypruner.graph.coupling.rules import rule
from easypruner.graph.recording.tape import Operation


@rule('zeros', 'ones', 'full', 'empty', 'new_zeros', 'new_ones', 'new_full', 'new_empty',
      'empty_strided', 'new_empty_strided', 'rand', 'randn', 'scalar_tensor')  # fmt: skip
def uniform(coupling: Coupling, operation: Operation) -> None:
    """Every entry is like every other, so such a tensor fits whatever it is coupled with."""
    for output in operation.outputs:
        coupling.assign(output, (coupling.fresh(size) for size in output.shape))


@rule('arange', 'linspace', 'logspace', 'eye', 'randint', 'randperm', 'tril_indices',
      'triu_indices', 'hann_window')  # fmt: skip
def numbered(coupling: Coupling, operation: Operation) -> None:
    reason = coupling.why('a table made in the forward pass')
    for output in operation.outputs:
        coupling.assign(output, (coupling.constant(size, reason) for size in output.shape))


@rule('tril', 'triu')
def triangle(coupling: Coupling, operation: Operation) -> None:
    axes = coupling.axes(operation.args[0])
    for axis in axes[-2:]:
        coupling.fix(axis, 'the triangle of a square')
    coupling.assign(operation.outputs[0], axes)
