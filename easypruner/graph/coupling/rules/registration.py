"""The registry of rules: register a rule for operations, and find the rule of an operation.

A module of rules also gets the types of a rule's arguments here.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

import torch

from easypruner.errors import PluginError
from easypruner.graph.coupling.coupling import Coupling
from easypruner.graph.recording.kinds import once_each
from easypruner.graph.recording.tape import Operation, name_of

__all__ = ['WITHOUT_RULE', 'Coupling', 'Operation', 'find_rule', 'operations_of', 'rule']

Rule = Callable[[Coupling, Operation], None]

_NAME = re.compile(r'(\w+::)?\w+')
_RULES: dict[str, Rule] = {}

WITHOUT_RULE = 'an operation without a rule'
"""How the reason begins for which the inputs of such an operation stay."""


def rule(*names: str, replace: bool = False) -> Callable[[Rule], Rule]:
    """Register the decorated function as the rule of operations.

    A rule decides which axes of an operation's inputs become axes of its outputs, and which axes
    must lose the same indices. It must assign axes to every output. If it does not, if sizes do
    not fit, or if it fails, ``trace`` raises a TraceError that names the operation. Check a rule
    with :func:`easypruner.testing.check_rule`. An operation without a rule freezes every channel of
    its inputs. Operations that torch tags as pointwise need no rule.

    Args:
        names: the names of the operations, with their namespaces: ``'mylib::scale'``. Those of ATen
            need none: ``'cat'``. Overloads share one rule, as does the in-place variant ``'cat_'``
            unless it has a rule of its own.
        replace: whether to replace another rule.

    Raises:
        PluginError: an operation already has another rule, or a name is not that of an operation.

    A network that uses an operation of its own:

    >>> import easypruner
    >>> from easypruner.graph import Coupling, Operation, rule
    >>> from torch import Tensor, nn
    >>> @torch.library.custom_op('mylib::scale', mutates_args=())
    ... def scale(x: Tensor, factors: Tensor) -> Tensor:
    ...     return x * factors.view(-1, 1, 1)
    >>> @scale.register_fake
    ... def make_output(x: Tensor, factors: Tensor) -> Tensor:
    ...     return x * factors.view(-1, 1, 1)  # as the operation, so that widths have to fit
    >>> class Scaled(nn.Module):
    ...     def __init__(self) -> None:
    ...         super().__init__()
    ...         self.first, self.last = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1)
    ...         self.factors = nn.Parameter(torch.rand(8))
    ...
    ...     def forward(self, x: Tensor) -> Tensor:
    ...         return self.last(scale(self.first(x), self.factors))
    >>> net, images = Scaled(), torch.rand(1, 3, 8, 8)

    Without a rule, all channels around the operation stay:

    >>> graph = easypruner.trace(net, images)
    >>> len(graph.groups), graph.frozen[0].param
    (0, 'factors')
    >>> graph.frozen[0].reason
    'an operation without a rule: mylib::scale in the model itself (see easypruner.graph.rule)'

    The rule couples the channels with the factors and hands all axes on. It also notes what the
    parameter is used as, so that strategies know its kind.

    >>> @rule('mylib::scale')
    ... def couple_scale(coupling: Coupling, operation: Operation) -> None:
    ...     x, factors = operation.args
    ...     batch, channels, height, width = coupling.axes_of(x)
    ...     channels = coupling.couple(channels, coupling.axes_of(factors)[0])
    ...     coupling.note_use(factors, 'scale.factors')
    ...     coupling.assign(operation.outputs[0], (batch, channels, height, width))
    >>> graph = easypruner.trace(net, images)
    >>> [(member.param, member.role) for member in graph.groups['first'].members]
    [('first.weight', 'out'), ('first.bias', 'out'), ('factors', 'out'), ('last.weight', 'in')]
    >>> masks = {'first': torch.arange(8) > 2}
    >>> easypruner.verify(net, masks, images).passed
    True
    """
    for name in names:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise PluginError(
                f'{name!r} is not the name of an operation; expected one such as '
                "'mylib::my_operation', or 'cat' for an operation of ATen"
            )
    operations = [name.removeprefix('aten::') for name in names]

    def register(function: Rule) -> Rule:
        for name in operations:
            known = _RULES.get(name)
            if known is not None and not replace and not _is_same(known, function):
                raise PluginError(
                    f'{_origin(function)} is registered as the rule of {name!r}, which already '
                    f'has one: {_origin(known)}; remove one of them, or register the other with '
                    'replace=True'
                )
        _RULES.update(dict.fromkeys(operations, function))
        return function

    return register


def find_rule(operation: Operation) -> Rule:
    """Return the rule of an operation: its own, that of pointwise operations, or a full freeze."""
    return _known_rule(operation.func) or _freeze_all


def has_rule(func: Any) -> bool:
    """Return whether an overload of an operation, ``aten.cat.default``, has a rule."""
    return _known_rule(func) is not None


def _known_rule(func: Any) -> Rule | None:
    name = name_of(func)
    known = _RULES.get(name) or _RULES.get(name.removesuffix('_'))
    if known is None and _is_pointwise(func):
        known = _RULES['pointwise']
    return known


@once_each
def _is_pointwise(func: Any) -> bool:
    """Return whether torch tags an operation, or the one of which it is the in-place variant."""
    if torch.Tag.pointwise in func.tags:
        return True
    namespace, _, name = str(func._schema.name).partition('::')
    if not name.endswith('_') or name.endswith('__'):
        return False
    packet = getattr(getattr(torch.ops, namespace), name[:-1], None)
    return packet is not None and any(
        torch.Tag.pointwise in getattr(packet, overload).tags for overload in packet.overloads()
    )


def operations_of(module: str) -> tuple[str, ...]:
    """Return the operations whose rules a module has registered."""
    return tuple(name for name, function in _RULES.items() if function.__module__ == module)


def _is_same(one: Rule, other: Rule) -> bool:
    """Return whether two functions have the same name in the same file, which may be edited."""
    origins = {(rule.__qualname__, inspect.getsourcefile(rule)) for rule in (one, other)}
    return len(origins) == 1


def _origin(function: Rule) -> str:
    return f'{function.__module__}.{function.__qualname__}'


def _freeze_all(coupling: Coupling, operation: Operation) -> None:
    """Freeze all inputs and make all outputs constant, because nothing is known about them."""
    reason = f'{coupling.explain(WITHOUT_RULE)} (see easypruner.graph.rule)'
    for tensor in operation.tensors:
        for axis in coupling.axes_of(tensor):
            if not axis.is_constant:
                coupling.freeze_nodes(axis.ids, reason)
    for output in operation.outputs:
        if not coupling.has_axes(output):
            coupling.assign_constants(output, reason)
