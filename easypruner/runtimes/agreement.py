"""Agreement: what a runtime computes is compared with torch, on several inputs and batch sizes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from easypruner.base.modules import evaluating
from easypruner.base.nested import map_tensors
from easypruner.base.randomness import fixed_seed
from easypruner.errors import EasyPrunerError
from easypruner.runtimes.difference import relative_error, tolerance_of
from easypruner.runtimes.program import first_outputs, outputs_of
from easypruner.runtimes.reasons import first_lines
from easypruner.runtimes.runtime import Session

_OTHER_BATCHES = (3, 1)


@dataclass(frozen=True)
class Agreement:
    """How far a runtime's outputs are from torch's.

    Attributes:
        error: the largest difference, relative to the largest value of the same output.
        other_batch: whether other sizes of the batch give the right outputs as well.
        reason: why they do not; empty if they do, or were not tried.
    """

    error: float
    other_batch: bool
    reason: str = ''


def check_agreement(
    session: Session, network: nn.Module, inputs: Any, runtime: str, *, dynamic_batch: bool
) -> Agreement:
    """Compare the outputs of a runtime with those of torch.

    The example inputs are tried, then random ones like them, then other sizes of the batch. Random
    inputs on which the network fails, or returns what is not a number, do not count.

    Args:
        session: the network in the runtime.
        network: the network in torch, on the CPU.
        inputs: its example inputs.
        runtime: the name of the runtime, for messages.
        dynamic_batch: whether other sizes of the batch are tried.

    Raises:
        EasyPrunerError: the outputs differ, or the runtime cannot run the network.
    """
    with evaluating(network):
        expected = check_repeatable(network, inputs)
        error = _difference(session, inputs, expected, runtime)
        for given in _random_like(inputs):
            found = _outputs_if_valid(network, given)
            if found is not None:
                error = max(error, _difference(session, given, found, runtime))
        for size in _OTHER_BATCHES if dynamic_batch else ():
            try:
                error = max(error, _batch_difference(session, network, inputs, size, runtime))
            except EasyPrunerError as problem:  # noqa: PERF203
                return Agreement(error, False, f'a batch of {size}: {problem}')
        return Agreement(error, dynamic_batch)


def check_repeatable(network: nn.Module, inputs: Any) -> tuple[Tensor, ...]:
    """Return the outputs of a network on its example inputs.

    Args:
        network: the network, in evaluation mode.
        inputs: its example inputs.

    Raises:
        EasyPrunerError: the forward fails, or the outputs are not numbers, or others each time.
    """
    first = tuple(tensor for _, tensor in first_outputs(network, inputs))
    for one, other in zip(first, outputs_of(network, inputs), strict=True):
        if bool(torch.isnan(one).any()):
            raise EasyPrunerError(
                f'the outputs of this {type(network).__name__} are not numbers, so no export can '
                'be checked; look for NaN in its weights'
            )
        if not torch.equal(one, other):
            raise EasyPrunerError(
                f'this {type(network).__name__} returns other values each time in evaluation mode, '
                'so no export can be checked; it draws random numbers, or changes its own state'
            )
    return first


def _batch_difference(
    session: Session, network: nn.Module, inputs: Any, size: int, runtime: str
) -> float:
    """Return the largest relative difference of the outputs on another size of the batch.

    Raises:
        EasyPrunerError: it is too large, or the runtime or torch fails.
    """
    resized = with_batch(inputs, size)
    # A network may take the samples of the example only.
    for given in (*_random_like(resized), resized):
        expected = _outputs_if_valid(network, given)
        if expected is not None:
            return _difference(session, given, expected, runtime)
    try:
        outputs_of(network, resized)
    except Exception as error:  # a forward raises errors of any class
        raise EasyPrunerError(f'torch does not run the network: {first_lines(error)}') from error
    # A statistic over the samples, for example, is not a number if there is one of them.
    return 0.0


def with_batch(inputs: Any, size: int) -> Any:
    """Return inputs with another size of the batch, their samples repeated."""

    def resized(tensor: Tensor) -> Tensor:
        if not tensor.dim() or not len(tensor):
            return tensor
        return torch.cat([tensor] * math.ceil(size / len(tensor)))[:size]

    return map_tensors(inputs, resized)


def _random_like(inputs: Any) -> Iterator[Any]:
    """Yield random inputs: the values in another order, then normal numbers for those of floats.

    Another order keeps the range of the values, which a network may need. The values that an index
    may have are not known, except for those of the example.
    """

    def shuffled(tensor: Tensor) -> Tensor:
        if tensor.numel() < 2 or _is_mask(tensor):
            return tensor
        return tensor.flatten()[torch.randperm(tensor.numel())].reshape(tensor.shape)

    def drawn(tensor: Tensor) -> Tensor:
        return torch.randn_like(tensor) if tensor.is_floating_point() else shuffled(tensor)

    with fixed_seed(0):
        yield map_tensors(inputs, shuffled)
        yield map_tensors(inputs, drawn)


def _is_mask(tensor: Tensor) -> bool:
    """Return whether a tensor says what is there. Of what is masked, outputs may be anything."""
    if tensor.is_floating_point() or tensor.is_complex():
        return False
    return bool(((tensor == 0) | (tensor == 1)).all())


def _outputs_if_valid(network: nn.Module, inputs: Any) -> tuple[Tensor, ...] | None:
    """Return the outputs on random inputs; None if these are not what the network takes."""
    try:
        outputs = outputs_of(network, inputs)
    except Exception:  # a forward raises errors of any class
        return None
    # The root of a negative number, for example.
    return None if any(bool(torch.isnan(tensor).any()) for tensor in outputs) else outputs


def _difference(session: Session, inputs: Any, expected: tuple[Tensor, ...], runtime: str) -> float:
    """Return the largest relative difference of the outputs on some inputs.

    Raises:
        EasyPrunerError: it is too large, or the runtime fails.
    """
    try:
        got = session.bind(map_tensors(inputs, torch.clone))()
    except EasyPrunerError:
        raise
    except Exception as error:  # runtimes raise errors of many classes
        raise EasyPrunerError(
            f'{runtime} cannot run the exported network: {first_lines(error)}'
        ) from error
    if [tuple(t.shape) for t in got] != [tuple(t.shape) for t in expected]:
        complex_output = any(tensor.is_complex() for tensor in expected)
        advice = '; of complex numbers, return torch.view_as_real(...)' if complex_output else ''
        raise EasyPrunerError(
            f'{runtime} returns outputs of the shapes {_shapes(got)}, torch {_shapes(expected)}'
            f'{advice}'
        )
    worst = max(map(relative_error, got, expected))
    limit = tolerance_of(expected)
    if not worst <= limit:
        raise EasyPrunerError(
            f'the outputs of {runtime} differ from those of torch by {worst:.1e} of the largest '
            f'value; expected at most {limit:g}'
        )
    return worst


def _shapes(tensors: tuple[Tensor, ...]) -> str:
    return ', '.join(str(tuple(tensor.shape)) for tensor in tensors)
