"""Calls of a model by a batch: the arguments and the mode, by the conventions of MMEngine."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from easypruner.base.describe import describe
from easypruner.base.nested import tensors_in
from easypruner.errors import ConfigError, TraceError
from easypruner.graph.recording.inventory import StandIns
from easypruner.graph.recording.tape import record

_OUTPUTS, _PREDICTIONS, _LOSS = 'tensor', 'predict', 'loss'
_modes: WeakKeyDictionary[type[nn.Module], str] = WeakKeyDictionary()
"""Class of a model -> the mode in which its forward pass returns tensors that are not losses."""


def outputs_call(model: nn.Module, data: Any) -> dict[str, Any]:
    """Return the arguments with which a model returns its outputs for a batch.

    The mode is ``'tensor'``. A model that returns no tensor in it, such as those of MMEngine's
    tutorials, gets ``'predict'``. What is not a tensor, such as labels in a list, is left out where
    the forward pass does not need it.

    Args:
        model: a ``BaseModel`` of MMEngine.
        data: a batch, after the data preprocessor of the model.

    Raises:
        ConfigError: the batch does not fit the forward pass.
    """
    if type(model) not in _modes:
        _modes[type(model)] = _mode_of(model, data)
    mode = _modes[type(model)]
    arguments = _named(model, data, mode)
    return arguments if mode == _PREDICTIONS else _needed(model, arguments)


def loss_call(model: nn.Module, data: Any) -> dict[str, Any]:
    """Return the arguments with which a model returns its losses for a batch.

    Raises:
        ConfigError: the batch does not fit the forward pass.
    """
    return _named(model, data, _LOSS)


def images_call(model: nn.Module, images: Tensor) -> dict[str, Any]:
    """Return the arguments with which a model returns its outputs for images alone.

    Raises:
        ConfigError: its forward pass takes nothing, or needs more than images.
    """
    names = [name for name in inspect.signature(model.forward).parameters if name != 'mode']
    return outputs_call(model, dict.fromkeys(names[:1], images))


def _mode_of(model: nn.Module, data: Any) -> str:
    """Return the first mode in which a model returns a tensor, ``'tensor'`` if there is none."""
    for mode in (_OUTPUTS, _PREDICTIONS):
        arguments = _named(model, data, mode)
        given = _needed(model, arguments) if mode == _OUTPUTS else arguments
        try:
            if record(StandIns(model), given).outputs:
                return mode
        except TraceError:
            # The trace of the network explains it.
            continue
    return _OUTPUTS


def _named(model: nn.Module, data: Any, mode: str) -> dict[str, Any]:
    """Return name -> argument of the forward pass, as MMEngine passes a batch to it."""
    signature = inspect.signature(model.forward)
    try:
        if isinstance(data, Mapping):
            bound = signature.bind(**data, mode=mode)
        elif isinstance(data, tuple | list):
            bound = signature.bind(*data, mode=mode)
        else:
            raise ConfigError(
                f'the data_preprocessor of {type(model).__name__} returns {describe(data)}; '
                'expected a dict of named arguments of its forward, or a tuple of arguments'
            )
    except TypeError as error:
        raise ConfigError(
            f'a batch does not fit {type(model).__name__}.forward{signature}: {error}; the batch, '
            f'after the data_preprocessor, is {describe(data)}, and the argument mode={mode!r} '
            'comes with it'
        ) from error
    arguments: dict[str, Any] = {}
    for name, value in bound.arguments.items():
        kind = signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_KEYWORD:
            arguments |= value
        elif kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.POSITIONAL_ONLY):
            raise ConfigError(
                f'{type(model).__name__}.forward{signature} takes {name} by position only; give '
                'its arguments names, so that a call of it can be repeated'
            )
        else:
            arguments[name] = value
    return arguments


def _needed(model: nn.Module, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out the arguments without a tensor that have a default, except the mode."""
    parameters = inspect.signature(model.forward).parameters
    return {
        name: value
        for name, value in arguments.items()
        if name == 'mode'
        or any(True for _ in tensors_in(value))
        or (name in parameters and parameters[name].default is inspect.Parameter.empty)
    }
