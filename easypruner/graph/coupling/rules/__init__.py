"""Rules: which axes an operation hands on to its outputs, and which axes it couples.

There is a module for each kind of operations. A rule is registered under their names.
"""

from __future__ import annotations

from importlib import import_module

from easypruner.errors import EasyPrunerError, TraceError
from easypruner.graph.coupling.rules.registration import Coupling, Operation, find_rule, rule

__all__ = ['apply_rule', 'rule']

for _family in (
    'pointwise', 'views', 'pieces', 'contractions', 'recurrent', 'norms', 'spatial', 'indexing',
    'writing', 'quantization', 'experts', 'fills', 'draws', 'triangles', 'derivatives',
):  # fmt: skip
    import_module(f'{__name__}.{_family}')


def apply_rule(coupling: Coupling, operation: Operation) -> None:
    """Apply the rule of an operation, and count the cost of its outputs.

    Raises:
        TraceError: the rule fails, or assigns an output no axes, or an output is nested.
    """
    if not operation.outputs and not operation.func._schema.is_mutable:
        return
    if any(output.is_nested for output in operation.outputs):
        raise TraceError(
            f'{operation} makes a nested tensor, of which channels cannot be followed; trace the '
            'network on padded tensors'
        )
    coupling.operation = operation
    coupling.splits.start_operation()
    try:
        find_rule(operation)(coupling, operation)
    except EasyPrunerError:
        raise
    except Exception as error:
        reason = f'{type(error).__name__}: {error}'
        raise TraceError(f'the rule of {operation} fails: {reason}') from error
    for output in operation.outputs:
        if not coupling.has_axes(output):
            raise TraceError(
                f'an output is given no axes by the rule of {operation}; '
                'call coupling.assign(output, axes) for each output'
            )
    if coupling.positions.axes:
        for axis in coupling.positions.follow(operation):
            coupling.freeze(axis, 'positions of channels are used as values')
    if coupling.axes.derive(operation):
        coupling.note_alike()
    coupling.tally.add_outputs(operation, coupling.axes)
