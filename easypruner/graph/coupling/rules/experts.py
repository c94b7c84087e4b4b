"""Rules for grouped matrix products: each group of rows, such as the tokens of an expert."""

from __future__ import annotations

from easypruner.graph.coupling.rules.contractions import multiply
from easypruner.graph.coupling.rules.registration import Coupling, Operation, rule

_ALIGNED = 16
"""Torch's kernels need rows that start at multiples of so many bytes."""


@rule('_grouped_mm', 'transformers::grouped_mm_fallback')
def multiply_groups(coupling: Coupling, operation: Operation) -> None:
    """Couple the dimensions that are multiplied, and the stack of matrices with the groups.

    Of two matrices with groups of columns and of rows, the result is a stack.
    """
    a, b = operation.args[:2]
    groups = operation.argument('offs')
    if groups is None:
        multiply(coupling, operation)
        return
    (*left, rows, summed), (*right, reads, columns) = map(coupling.axes_of, (a, b))
    for tensor, other in ((a, b), (b, a)):
        if coupling.parameter_of(other) is None:
            coupling.note_use(tensor, 'linear.weight', other.shape[:1])
    coupling.contract(a, summed, b, reads)
    stack = coupling.couple_all([*left, *right, *coupling.axes_of(groups)])
    coupling.tally.experts.append(stack)
    if operation.name == '_grouped_mm':
        for axis in (summed, columns):
            coupling.note_multiple(axis, _ALIGNED // a.element_size())
    bias = operation.argument('bias')
    if bias is not None:
        coupling.note_use(bias, 'linear.bias')
        columns = coupling.couple(columns, coupling.axes_of(bias)[-1])
    of_output = [rows, columns] if left or right else [stack, rows, columns]
    coupling.assign(operation.output, of_output)
    coupling.add_macs(1, rows, summed, columns)
