"""Rules for triangular and diagonal matrices."""

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


@rule('diag_embed')
def make_diagonal(coupling: Coupling, operation: Operation) -> None:
    """Put an axis on both sides of a square. It stays if its diagonal is not the main one."""
    *batch, axis = coupling.axes_of(operation.args[0])
    if operation.argument('offset'):
        coupling.freeze(axis, coupling.explain('a diagonal beside the main one of a square'))
    count = operation.output.dim()
    sides = {operation.argument(name) % count for name in ('dim1', 'dim2')}
    others = iter(batch)
    axes = [axis if dim in sides else next(others) for dim in range(count)]
    if operation.argument('offset'):
        pairs = zip(axes, operation.output.shape, strict=True)
        axes = [own if own.size == size else coupling.make_constant(size) for own, size in pairs]
    coupling.assign(operation.output, axes)
