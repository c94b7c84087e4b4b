"""Rules for triangular matrices."""

from __future__ import annotations

from easypruner.graph.coupling.rules.pointwise import broadcast
from easypruner.graph.coupling.rules.registration import Coupling, Operation, rule

TRIANGLE = 'the triangle of a square'


@rule('tril', 'triu')
def cut_triangle(coupling: Coupling, operation: Operation) -> None:
    """Freeze rows and columns: the size of a square decides which entries become zero."""
    axes = coupling.axes_of(operation.args[0])
    for axis in axes[-2:]:
        coupling.freeze(axis, TRIANGLE)
    coupling.assign(operation.output, axes)


@rule('linalg_solve_triangular')
def solve_triangle(coupling: Coupling, operation: Operation) -> None:
    """Freeze a triangle and the side that it is multiplied with; hand on the other side."""
    triangle, given = operation.args[:2]
    *batch, rows, columns = coupling.axes_of(triangle)
    *others, above, beside = coupling.axes_of(given)
    for axis in (rows, columns, above if operation.argument('left') else beside):
        coupling.freeze(axis, TRIANGLE)
    output = operation.output
    matrices = broadcast(coupling, (batch, others), output.dim() - 2)
    coupling.assign(output, (*matrices, above, beside))
