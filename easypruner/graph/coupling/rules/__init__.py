"""Rules: how each ATen operation passes index arrays on, and what it couples.

A rule is a function ``rule(coupling, operation)`` that assigns axes to the operation's outputs.
Pointwise operations need no rule of their own: torch tags them. An operation without a rule
freezes whatever flows into it, and says so in the reason.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

import torch
from torch import Tensor

from easypruner.graph.coupling.coupling import Coupling
from easypruner.graph.recording.tape import Operation

Rule = Callable[[Coupling, Operation], None]

_RULES: dict[str, Rule] = {}
_FAMILIES = (
    'pointwise',
    'views',
    'pieces',
    'contractions',
    'recurrent',
    'norms',
    'spatial',
    'indexing',
    'fills',
)


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register a rule for operations by their short names, e.g. ``'cat'``."""

    def register(function: Rule) -> Rule:
        for name in names:
            _RULES[name] = function
        return function

    return register


def apply(coupling: Coupling, operation: Operation) -> None:
    """Let the rule of ``operation`` work on it."""
    if not operation.outputs:
        return
    coupling.operation = operation
    coupling.step += 1
    _find(operation)(coupling, operation)
    sources = tensors_of(operation)
    for output in operation.outputs:
        coupling.derive(output, sources)
    coupling.made(sources)


def tensors_of(operation: Operation) -> list[Tensor]:
    """Return the tensors among an operation's arguments, lists of tensors included."""
    found: list[Tensor] = []
    for value in (*operation.args, *operation.kwargs.values()):
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            found.extend(item for item in value if isinstance(item, Tensor))
    return found


def _find(operation: Operation) -> Rule:
    known = _RULES.get(operation.name)
    if known is None:
        known = _RULES.get(operation.name.removesuffix('_'))
    if known is None:
        tags = operation.func.tags
        known = _RULES['pointwise'] if torch.Tag.pointwise in tags else _unknown
    return known


def _unknown(coupling: Coupling, operation: Operation) -> None:
    text = 'an operation without a rule'
    for tensor in tensors_of(operation):
        for axis in coupling.axes(tensor):
            coupling.fix(axis, text)
    for output in operation.outputs:
        if not coupling.assigned(output):
            reason = coupling.why(text)
            coupling.assign(output, (coupling.constant(size, reason) for size in output.shape))


for _family in _FAMILIES:
    import_module(f'{__name__}.{_family}')
