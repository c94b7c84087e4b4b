"""Rules: how each operation hands axes on, and which axes it couples.

Rules are grouped by what operations do. Each is registered under the names of its operations.
"""

from __future__ import annotations

from importlib import import_module

from easypruner.errors import TraceError
from easypruner.graph.coupling.coupling import Coupling
from easypruner.graph.coupling.rules.registration import find_rule, rule
from easypruner.graph.recording.tape import Operation

__all__ = ['apply_rule', 'rule']

for _family in (
    'pointwise', 'views', 'pieces', 'contractions', 'recurrent', 'norms', 'spatial', 'indexing',
    'fills',
):  # fmt: skip
    import_module(f'{__name__}.{_family}')


def apply_rule(coupling: Coupling, operation: Operation) -> None:
    """Let the rule of an operation couple axes and give the outputs theirs.

    Raises:
        TraceError: an output has no axes after that.
    """
    if not operation.outputs and not operation.func._schema.is_mutable:
        return
    coupling.operation = operation
    coupling.splits.start_operation()
    find_rule(operation)(coupling, operation)
    for output in operation.outputs:
        if not coupling.has_axes(output):
            raise TraceError(f'an output is given no axes by the rule of {operation}')
    coupling.axes.derive(operation)
    coupling.tally.add_outputs(operation, coupling.axes)
