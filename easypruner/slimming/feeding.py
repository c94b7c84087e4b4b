"""Forward passes and losses of slim() on a caller's batches."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from easypruner.base.describe import describe
from easypruner.base.nested import map_tensors
from easypruner.errors import ConfigError
from easypruner.graph.recording.tape import ExampleInputs, call_arguments
from easypruner.slimming.checks import check_function

Forward = Callable[[nn.Module, Any], Any]
Loss = Callable[[nn.Module, Any], Tensor]

_WRONG_ARGUMENTS = (TypeError, AttributeError)
_WRONG_VALUES = (TypeError, RuntimeError)
_FUNCTIONS = nn.functional.__name__
_ADVICE = {
    True: 'or give forward= (and loss=), functions of a network and a batch',
    False: 'or give forward=, a function of a network and a batch',
}
"""Whether there is an argument ``loss`` -> what to do about a batch that does not fit."""


class Feed:
    """Runs networks on batches.

    A batch is a pair of inputs and targets, or inputs alone. The example inputs decide between
    these: a batch ``(a, b)`` is the inputs of a network with two inputs. For a network with one
    input, it is this input and the targets.

    Args:
        example_inputs: as for :func:`easypruner.trace`; None for a network with one tensor as its
            input, or with keyword arguments.
        forward: a function of a network and a batch, which returns the outputs; None to call the
            network itself.
        loss: a function of a network and a batch, or a loss of torch, which is a function of
            outputs and targets; None for the cross entropy.
        owner: the function that takes these arguments, for messages.
        takes_loss: whether this function has an argument ``loss``.

    Raises:
        ConfigError: ``forward`` or ``loss`` is not a function.
    """

    def __init__(
        self,
        example_inputs: ExampleInputs | None,
        forward: Forward | None,
        loss: Loss | nn.Module | None,
        owner: str,
        takes_loss: bool = True,
    ) -> None:
        check_function(forward, 'forward', owner)
        check_function(loss, 'loss', owner)
        # Without an example, any tensor fits.
        self._example = torch.empty(()) if example_inputs is None else example_inputs
        self._like = (
            'a tensor'
            if example_inputs is None
            else f'inputs like example_inputs, {describe(example_inputs)}'
        )
        self._forward = forward
        self._loss = loss
        self._owner = owner
        self._advice = _ADVICE[takes_loss]

    @property
    def needs_pairs(self) -> bool:
        """Whether the loss is a function of outputs and targets."""
        return self._loss is None or _is_of_outputs(self._loss)

    def check(self, batches: Any) -> None:
        """Raise ConfigError if a batch in a list or tuple has an unknown structure."""
        if self._forward is None and isinstance(batches, list | tuple):
            for batch in batches:
                self._split(batch)

    @torch.no_grad()
    def forward(self, model: nn.Module, batch: Any) -> object:
        """Run a network on the inputs of a batch."""
        return self._outputs(model, batch)

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """Return the loss of a network on a batch.

        Raises:
            ConfigError: the loss cannot be computed on this batch, or has other arguments.
        """
        if self.needs_pairs:
            return self._loss_of_outputs(model, batch)
        assert self._loss is not None
        called = f'loss of {self._owner} fails when called with a network and a batch'
        with _reporting(called, 'it gets these, not outputs and targets', _WRONG_ARGUMENTS):
            return self._loss(model, batch)

    def _loss_of_outputs(self, model: nn.Module, batch: Any) -> Tensor:
        targets = self._targets(batch)
        outputs = self._outputs(model, batch)
        targets = _to_device(targets, model)
        if self._loss is None:
            return self._cross_entropy(outputs, targets)
        name = getattr(self._loss, '__name__', type(self._loss).__name__)
        called = (
            f'loss={name} of {self._owner} fails on the outputs of the network '
            f'({describe(outputs)}) and the targets ({describe(targets)})'
        )
        with _reporting(called):
            return self._loss(outputs, targets)

    def _cross_entropy(self, outputs: Any, targets: Any) -> Tensor:
        indices = isinstance(targets, Tensor) and targets.dtype == torch.int64
        if not indices or not isinstance(outputs, Tensor):
            raise ConfigError(
                f'the default loss of {self._owner} is the cross entropy of a tensor and class '
                f'indices (int64), but the network returns {describe(outputs)} and the targets are '
                f'{describe(targets)}; give loss=, a function of a network and a batch'
            )
        return nn.functional.cross_entropy(outputs, targets)

    def _targets(self, batch: Any) -> Any:
        if self._forward is None:
            _, targets = self._split(batch)
        else:
            targets = batch[1] if _is_pair(batch) else None
        if targets is None:
            raise ConfigError(
                f'a batch of {self._owner} is {describe(batch)}, inputs without targets, but a '
                'loss needs targets; give pairs of inputs and targets, or loss=, a function of a '
                'network and a batch'
            )
        return targets

    def _outputs(self, model: nn.Module, batch: Any) -> Any:
        if self._forward is not None:
            return self._forward(model, batch)
        inputs, _ = self._split(batch)
        args, kwargs = call_arguments(_to_device(inputs, model))
        called = (
            f'{type(model).__name__} fails on {describe(inputs)}, the inputs of a batch of '
            f'{self._owner}'
        )
        advice = f'expected {self._like}, {self._advice}'
        with _reporting(called, advice):
            return model(*args, **kwargs)

    def _split(self, batch: Any) -> tuple[Any, Any]:
        """Return the inputs and the targets of a batch; the targets may be None."""
        pair = tuple(batch) if _is_pair(batch) else None
        if (inputs := self._inputs(batch)) is not None:
            return inputs, None
        if pair and (inputs := self._inputs(pair[0])) is not None:
            return inputs, pair[1]
        if not isinstance(self._example, Mapping):
            # A dict has keyword arguments, whose names positional example inputs cannot confirm.
            if isinstance(batch, Mapping):
                return batch, None
            if pair and isinstance(pair[0], Mapping):
                return pair
        raise ConfigError(
            f'a batch of {self._owner} is {describe(batch)}, neither {self._like}, nor a pair of '
            f'inputs and targets; give a list of batches or a data loader, {self._advice}'
        )

    def _inputs(self, value: Any) -> Any:
        """Return the part of a value that is structured like the example inputs, or None."""
        if isinstance(self._example, Mapping):
            return _select(value, self._example) if isinstance(value, Mapping) else None
        return value if _fits(_as_tuple(value), _as_tuple(self._example)) else None


@contextlib.contextmanager
def _reporting(
    problem: str, advice: str = '', errors: tuple[type[Exception], ...] = _WRONG_VALUES
) -> Iterator[None]:
    """Convert exceptions of a block to a ConfigError that states the problem and the advice."""
    try:
        yield
    except errors as error:
        message = f'{problem}: {type(error).__name__}: {error}'
        raise ConfigError(f'{message}; {advice}' if advice else message) from error


def _is_of_outputs(loss: Any) -> bool:
    """Return whether a loss is one of torch's, such as nn.CrossEntropyLoss() or F.cross_entropy."""
    loss = loss.func if isinstance(loss, partial) else loss
    return isinstance(loss, nn.Module) or getattr(loss, '__module__', '') == _FUNCTIONS


def _is_pair(batch: Any) -> bool:
    return isinstance(batch, tuple | list) and len(batch) == 2


def _as_tuple(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, tuple | list) else (value,)


def _fits(value: Any, example: Any) -> bool:
    """Return whether a value has the structure of an example. Tensors may have more dimensions."""
    if isinstance(example, Tensor):
        return isinstance(value, Tensor) and value.dim() >= example.dim()
    if isinstance(example, Mapping):
        return isinstance(value, Mapping) and _select(value, example) is not None
    if isinstance(example, tuple | list):
        alike = isinstance(value, tuple | list) and len(value) == len(example)
        return alike and all(map(_fits, value, example))
    return not isinstance(value, Tensor | Mapping | tuple | list)


def _select(value: Mapping[Any, Any], example: Mapping[Any, Any]) -> dict[Any, Any] | None:
    """Return the entries of a dict that an example has, or None if a tensor is missing.

    An entry that is not a tensor, such as a flag, defaults to that of the example.
    """
    entries = {
        key: value.get(key, None if isinstance(own, Tensor) else own)
        for key, own in example.items()
    }
    return entries if all(_fits(entries[key], own) for key, own in example.items()) else None


def _to_device(value: Any, model: nn.Module) -> Any:
    """Return a value with its tensors on the device of a model."""
    parameter = next(model.parameters(), None)
    if parameter is None:
        return value
    return map_tensors(value, lambda tensor: tensor.to(parameter.device))
