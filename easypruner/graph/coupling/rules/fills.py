"""Rules for operations that make tensors without values of others."""

from __future__ import annotations

from easypruner.graph.coupling.rules.registration import Coupling, Operation, rule
from easypruner.graph.coupling.rules.views import make_copies


@rule('zeros', 'ones', 'full', 'empty', 'new_zeros', 'new_ones', 'new_full', 'new_empty',
      'empty_strided', 'new_empty_strided', 'scalar_tensor')  # fmt: skip
def fill(coupling: Coupling, operation: Operation) -> None:
    """Leave all axes free: all entries are alike, so any of them may go."""
    for output in operation.outputs:
        coupling.assign(output, [make_copies(coupling, size) for size in output.shape])


TABLE = 'a table made in the forward pass'
TABLES = ('arange', 'linspace', 'logspace', 'eye', 'randint', 'randperm', 'tril_indices',
          'triu_indices', 'hann_window')  # fmt: skip
"""Operations that make tables, without values of other tensors."""


@rule(*TABLES)
def make_table(coupling: Coupling, operation: Operation) -> None:
    """Keep all entries: each has a value of its own, on which others may depend."""
    reason = coupling.explain(TABLE)
    for output in operation.outputs:
        coupling.assign_constants(output, reason)
