"""Feeding: what slim() runs on a caller's data: forward passes, losses, accuracies."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from easypruner.base.describe import describe
from easypruner.base.modules import evaluating
from easypruner.base.nested import map_tensors
from easypruner.errors import ConfigError
from easypruner.graph.recording.tape import ExampleInputs, call_arguments

Batches = Iterable[Any] | Callable[[], Iterable[Any]]
"""Something that can be gone through several times, or a function that opens a new pass."""

Forward = Callable[[nn.Module, Any], Any]
Loss = Callable[[nn.Module, Any], Tensor]

_FUNCTIONS = nn.functional.__name__
_ADVICE = 'or give forward= (and loss=), functions of a network and a batch'


class Feed:
    """Runs networks on batches.

    A batch is a pair of inputs and targets, or inputs alone. Which of them is told by the example
    inputs: ``(a, b)`` are the inputs of a network of two inputs, and of one of a single input they
    are its input and the targets.

    Args:
        example_inputs: as for :func:`easypruner.trace`.
        forward: of a network and a batch; then batches are not looked into.
        loss: of a network and a batch; or one of torch's, of outputs and targets.
        owner: whose arguments they are, for messages.

    Raises:
        ConfigError: what is to be called is no function.
    """

    def __init__(
        self,
        example_inputs: ExampleInputs,
        forward: Forward | None,
        loss: Loss | nn.Module | None,
        owner: str,
    ) -> None:
        check_function(forward, 'forward', owner)
        check_function(loss, 'loss', owner)
        self._example = example_inputs
        self._forward = forward
        self._loss = loss
        self._owner = owner

    @property
    def needs_pairs(self) -> bool:
        """Whether the loss is one of outputs and targets."""
        return self._loss is None or _is_of_outputs(self._loss)

    def check(self, batches: Any) -> None:
        """Raise ConfigError if the batches of a list or tuple are not understood."""
        if self._forward is None and isinstance(batches, list | tuple):
            for batch in batches:
                self._parts(batch)

    @torch.no_grad()
    def forward(self, model: nn.Module, batch: Any) -> object:
        """Run a network on the inputs of a batch."""
        return self._outputs(model, batch)

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """Return the loss of a network on a batch.

        Raises:
            ConfigError: it cannot be computed on this batch, or takes something else.
        """
        if self.needs_pairs:
            return self._loss_of_outputs(model, batch)
        assert self._loss is not None
        try:
            loss: Tensor = self._loss(model, batch)
        except (TypeError, AttributeError) as error:
            raise ConfigError(
                f'loss of {self._owner} fails when called with a network and a batch: '
                f'{type(error).__name__}: {error}; it is given these, not outputs and targets'
            ) from error
        return loss

    def _loss_of_outputs(self, model: nn.Module, batch: Any) -> Tensor:
        targets = self._targets(batch)
        outputs = self._outputs(model, batch)
        targets = _moved(targets, model)
        if self._loss is None:
            return self._cross_entropy(outputs, targets)
        try:
            loss: Tensor = self._loss(outputs, targets)
        except (TypeError, RuntimeError) as error:
            name = getattr(self._loss, '__name__', type(self._loss).__name__)
            raise ConfigError(
                f'loss={name} of {self._owner} fails on the outputs of the network '
                f'({describe(outputs)}) and the targets ({describe(targets)}): '
                f'{type(error).__name__}: {error}'
            ) from error
        return loss

    def _cross_entropy(self, outputs: Any, targets: Any) -> Tensor:
        indices = isinstance(targets, Tensor) and targets.dtype == torch.int64
        if not indices or not isinstance(outputs, Tensor):
            raise ConfigError(
                f'by default the loss of {self._owner} is the cross entropy of a tensor and class '
                f'indices (int64); the network returns {describe(outputs)} and the targets are '
                f'{describe(targets)}; give loss=, a function of a network and a batch'
            )
        return nn.functional.cross_entropy(outputs, targets)

    def _targets(self, batch: Any) -> Any:
        if self._forward is None:
            _, targets = self._parts(batch)
        else:
            targets = batch[1] if _is_pair(batch) else None
        if targets is None:
            raise ConfigError(
                f'a batch of {self._owner} is {describe(batch)}, inputs without targets, of which '
                'no loss is known; expected pairs of inputs and targets, or give loss=, a function '
                'of a network and a batch'
            )
        return targets

    def _outputs(self, model: nn.Module, batch: Any) -> Any:
        if self._forward is not None:
            return self._forward(model, batch)
        inputs, _ = self._parts(batch)
        args, kwargs = call_arguments(_moved(inputs, model))
        try:
            return model(*args, **kwargs)
        except (TypeError, RuntimeError) as error:
            raise ConfigError(
                f'{type(model).__name__} fails on {describe(inputs)}, the inputs of a batch of '
                f'{self._owner}: {type(error).__name__}: {error}; expected what example_inputs '
                f'are, {describe(self._example)}, {_ADVICE}'
            ) from error

    def _parts(self, batch: Any) -> tuple[Any, Any]:
        """Return the inputs and the targets of a batch; None where it has none."""
        pair = tuple(batch) if _is_pair(batch) else None
        if (inputs := self._inputs(batch)) is not None:
            return inputs, None
        if pair and (inputs := self._inputs(pair[0])) is not None:
            return inputs, pair[1]
        if not isinstance(self._example, Mapping):
            # Keyword arguments, of which the example does not tell the names.
            if isinstance(batch, Mapping):
                return batch, None
            if pair and isinstance(pair[0], Mapping):
                return pair
        raise ConfigError(
            f'a batch of {self._owner} is {describe(batch)}, neither inputs as example_inputs are, '
            f'{describe(self._example)}, nor a pair of such and targets; give a list of batches, '
            f'or a data loader, {_ADVICE}'
        )

    def _inputs(self, value: Any) -> Any:
        """Return the part of a value that is what the example inputs are, or None."""
        if isinstance(self._example, Mapping):
            return _picked(value, self._example) if isinstance(value, Mapping) else None
        fits = _fits(_sequence(value), _sequence(self._example))
        return value if fits else None


def check_function(value: Any, argument: str, owner: str) -> None:
    """Raise ConfigError unless a value can be called, or is None."""
    if isinstance(value, type):
        raise ConfigError(
            f'{argument} of {owner} is the class {value.__name__}; build it, as in '
            f'{value.__name__}()'
        )
    if value is not None and not callable(value):
        raise ConfigError(f'{argument}={reprlib.repr(value)} of {owner} is no function')


def opener(batches: Any, owner: str) -> Callable[[], Iterable[Any]] | None:
    """Return a function that opens a pass over batches.

    Raises:
        ConfigError: they are not understood, or can be gone through only once.
    """
    if batches is None:
        return None
    met = f'batches of {owner} is {describe(batches)}'
    if isinstance(batches, Iterator):
        raise ConfigError(
            f'{met}, which can be gone through only once; give a data loader, a list, or a '
            'function that opens a new pass'
        )
    if isinstance(batches, Tensor | Mapping | str):
        raise ConfigError(f'{met}; a single batch is given as a list of one, [batch]')
    if isinstance(batches, tuple) and len(batches) == 2 and _are_tensors(batches):
        raise ConfigError(
            f'{met}, which may be one pair or two batches; give a list: [(inputs, targets)], or '
            '[inputs, inputs]'
        )
    if isinstance(batches, Iterable):
        return lambda: batches
    if not callable(batches) or isinstance(batches, nn.Module):
        raise ConfigError(
            f'batches={reprlib.repr(batches)} of {owner}; expected a data loader, a list of '
            'batches, or a function that opens a pass over them'
        )
    return lambda: _opened(batches(), owner)


def _opened(batches: Any, owner: str) -> Iterable[Any]:
    if not isinstance(batches, Iterable):
        raise ConfigError(
            f'the function batches of {owner} returns {describe(batches)}; expected what can be '
            'gone through, batch by batch'
        )
    return batches


def accuracy_by(
    evaluate: Callable[[nn.Module], float] | None, owner: str
) -> Callable[[nn.Module], float] | None:
    """Return ``evaluate``, in evaluation mode; the modes are afterwards what they were.

    Raises:
        ConfigError: it is no function; later, that what it returns is no number.
    """
    check_function(evaluate, 'evaluate', owner)
    if evaluate is None:
        return None

    def accuracy(model: nn.Module) -> float:
        with evaluating(model):
            value = evaluate(model)
        try:
            return float(value)
        except (TypeError, ValueError, RuntimeError):
            raise ConfigError(
                f'evaluate of {owner} returns {describe(value)}; expected a number, the accuracy '
                'in percent'
            ) from None

    return accuracy


def _is_of_outputs(loss: Any) -> bool:
    """Tell whether a loss is one of torch's, as nn.CrossEntropyLoss() or F.cross_entropy."""
    loss = loss.func if isinstance(loss, partial) else loss
    return isinstance(loss, nn.Module) or getattr(loss, '__module__', '') == _FUNCTIONS


def _is_pair(batch: Any) -> bool:
    return isinstance(batch, tuple | list) and len(batch) == 2


def _are_tensors(values: Iterable[Any]) -> bool:
    return all(isinstance(value, Tensor) for value in values)


def _sequence(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, tuple | list) else (value,)


def _fits(value: Any, example: Any) -> bool:
    """Tell whether a value is built as an example is. Dimensions may be added, as for a batch."""
    if isinstance(example, Tensor):
        return isinstance(value, Tensor) and value.dim() >= example.dim()
    if isinstance(example, Mapping):
        return isinstance(value, Mapping) and _picked(value, example) is not None
    if isinstance(example, tuple | list):
        alike = isinstance(value, tuple | list) and len(value) == len(example)
        return alike and all(map(_fits, value, example))
    return not isinstance(value, Tensor | Mapping | tuple | list)


def _picked(value: Mapping[Any, Any], example: Mapping[Any, Any]) -> dict[Any, Any] | None:
    """Return the entries that an example has, or None if one is missing.

    What is no tensor, such as a flag, need not be in every batch.
    """
    entries = {
        key: value.get(key, None if isinstance(own, Tensor) else own)
        for key, own in example.items()
    }
    return entries if all(_fits(entries[key], own) for key, own in example.items()) else None


def _moved(value: Any, model: nn.Module) -> Any:
    parameter = next(model.parameters(), None)
    if parameter is None:
        return value
    return map_tensors(value, lambda tensor: tensor.to(parameter.device))
