"""The states of optimizers in a cut: what handlers make of them, or why they are refused."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from easypruner.errors import CutError, EasyPrunerError, PluginError
from easypruner.graph.cutting.handles import fault_of_handles, find_handler
from easypruner.graph.cutting.optimizer_handler import (
    OptimizerHandler,
    ParameterCut,
    describe_optimizer,
    find_tensors,
)
from easypruner.graph.cutting.torch_optimizers import TORCH_OPTIMIZERS

_ADVICE = (
    'create a new optimizer after the cut, or write an OptimizerHandler for it (docs/plugins.md)'
)
_KNOWN = ('state', 'param_groups', 'defaults')


@dataclass(frozen=True)
class StateChange:
    """The change of an optimizer's state of one parameter.

    Attributes:
        state: the state.
        new: the new entries.
        old: the old values of these entries.
    """

    state: dict[str, Any]
    new: Mapping[str, Any]
    old: Mapping[str, Any]


class OptimizerStates:
    """The states of optimizers that are cut with the parameters of a network.

    Args:
        optimizers: the optimizers.
        handlers: handlers of optimizers, in order of precedence, before those for torch's own.

    Raises:
        CutError: one of them is not an optimizer.
        PluginError: ``handles`` of a handler is not valid.
    """

    def __init__(
        self, optimizers: Sequence[Any] = (), handlers: Sequence[OptimizerHandler] = ()
    ) -> None:
        for handler in handlers:
            fault = fault_of_handles(handler, 'optimizer')
            if fault:
                raise PluginError(f'optimizer handler {type(handler).__name__!r} {fault}')
        self._handlers = (*handlers, *TORCH_OPTIMIZERS)
        self._optimizers = []
        for optimizer in optimizers:
            chain = tuple(self._chain(optimizer))
            self._optimizers.append((chain, _parameters(optimizer)))

    def __bool__(self) -> bool:
        """Return whether there are optimizers."""
        return bool(self._optimizers)

    def plan(
        self, name: str, parameter: Tensor, kept: Mapping[int, Tensor]
    ) -> Iterator[StateChange]:
        """Yield the changes of all states of a parameter that is cut.

        Args:
            name: the name of the parameter.
            parameter: the parameter, in its old shape.
            kept: dimension -> the indices that stay.

        Raises:
            CutError: a state cannot be cut.
            PluginError: a handler fails.
        """
        if not kept:
            return
        for chain, parameters in self._optimizers:
            if id(parameter) not in parameters:
                continue
            states: dict[int, Any] = {}
            for optimizer, handler in chain:
                state = getattr(optimizer, 'state', {}).get(parameter, {})
                if handler is None:
                    _check_without_handler(optimizer, name)
                states.setdefault(id(state), (optimizer, state))
            for optimizer, state in states.values():
                cut = ParameterCut(name, parameter, kept, optimizer, state)
                handlers = [handler for _, handler in chain if handler is not None]
                new = {
                    key: _cut_entry(key, value, cut, handlers)
                    for key, value in state.items()
                    if next(find_tensors(value), None) is not None
                }
                yield StateChange(state, new, {key: state[key] for key in new})

    def _chain(self, optimizer: Any) -> Iterator[tuple[Any, OptimizerHandler | None]]:
        """Yield an optimizer and those that it wraps, each with its handler."""
        if not hasattr(optimizer, 'param_groups') or not hasattr(optimizer, 'state'):
            inner = hasattr(optimizer, 'optimizer')
            raise CutError(
                f'got the optimizer {optimizer!r}, of type {type(optimizer).__name__}; expected an '
                f'optimizer such as torch.optim.SGD, or several{": give its .optimizer" * inner}'
            )
        handler = find_handler(optimizer, self._handlers)
        yield optimizer, handler
        for name in handler.inner if handler is not None else ():
            if hasattr(optimizer, name):
                yield from self._chain(getattr(optimizer, name))


def _parameters(optimizer: Any) -> frozenset[int]:
    """Return the ids of an optimizer's parameters."""
    return frozenset(id(p) for group in optimizer.param_groups for p in group['params'])


def _check_without_handler(optimizer: Any, name: str) -> None:
    """Raise CutError if an optimizer without a handler has a state of several numbers already."""
    own = {key: value for key, value in vars(optimizer).items() if key not in _KNOWN}
    ignored = _parameters(optimizer)
    held = [optimizer.state, own, *optimizer.param_groups]
    if next(find_tensors(held, ignored), None) is not None:
        raise CutError(
            f'the optimizer {describe_optimizer(optimizer)} has a state whose layout is not known, '
            f'so it cannot be cut with its parameter {name!r}; {_ADVICE}'
        )


def _cut_entry(
    key: str, value: Any, cut: ParameterCut, handlers: Sequence[OptimizerHandler]
) -> Any:
    """Return an entry of a state as the first handler cuts it that knows its layout."""
    for handler in handlers:
        try:
            new = handler.cut_entry(key, value, cut)
        except EasyPrunerError:
            raise
        except Exception as error:
            at = traceback.extract_tb(error.__traceback__)[-1]
            raise PluginError(
                f'the optimizer handler {type(handler).__name__} fails on {key!r} of '
                f'{describe_optimizer(cut.optimizer)}: {type(error).__name__}: {error} '
                f'({Path(at.filename).name}:{at.lineno})'
            ) from error
        if new is not NotImplemented:
            return new
    shape = f' of shape {tuple(value.shape)}' if isinstance(value, Tensor) else ''
    raise CutError(
        f'{describe_optimizer(cut.optimizer)} keeps {key!r}{shape} for {cut.name!r} of shape '
        f'{tuple(cut.shape)}, whose layout is not known, so it cannot be cut with it; {_ADVICE}'
    )
