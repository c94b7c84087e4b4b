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
from easypruner.graph.recording.tape import call_model
from easypruner.runtimes.program import first_lines, tensors_of
from easypruner.runtimes.runtime import Session

TOLERANCE = 1e-4
"""The largest difference from torch, relative to the largest value of an output."""
_HALF_TOLERANCE = 2e-2
_RANDOM_INPUTS = 2
_OTHER_BATCH = 3


@dataclass(frozen=True)
class Agreement:
    """How far a runtime's outputs are from torch's.

    Attributes:
        error: the largest difference, relative to the largest value of the same output.
        other_batch: whether another size of the batch gives the right outputs as well.
        reason: why it does not; empty if it does, or was not tried.
    """

    error: float
    other_batch: bool
    reason: str = ''


def check_agreement(
    session: Session, network: nn.Module, inputs: Any, runtime: str, *, dynamic_batch: bool
) -> Agreement:
    """Compare the outputs of a runtime with those of torch.

    The example inputs are tried, then random ones like them, then another size of the batch.

    Args:
        session: the network in the runtime.
        network: the network in torch, on the CPU.
        inputs: its example inputs.
        runtime: the name of the runtime, for messages.
        dynamic_batch: whether another size of the batch is tried.

    Raises:
        EasyPrunerError: the outputs differ, or the runtime cannot run the network.
    """
    error = 0.0
    with evaluating(network):
        _check_repeatable(network, inputs)
        for given in (inputs, *_random_like(inputs)):
            error = max(error, _difference(session, network, given, runtime))
        if not dynamic_batch:
            return Agreement(error, False)
        try:
            other = next(_random_like(with_batch(inputs, _OTHER_BATCH)))
            return Agreement(max(error, _difference(session, network, other, runtime)), True)
        except EasyPrunerError as problem:
            return Agreement(error, False, f'a batch of {_OTHER_BATCH}: {problem}')


def with_batch(inputs: Any, size: int) -> Any:
    """Return inputs with another size of the batch, their samples repeated."""

    def resized(tensor: Tensor) -> Tensor:
        if not tensor.dim() or not len(tensor):
            return tensor
        return torch.cat([tensor] * math.ceil(size / len(tensor)))[:size]

    return map_tensors(inputs, resized)


def _random_like(inputs: Any) -> Iterator[Any]:
    """Yield random inputs: normal numbers, and integers and booleans in another order."""

    def drawn(tensor: Tensor) -> Tensor:
        if tensor.is_floating_point():
            return torch.randn_like(tensor)
        if tensor.is_complex() or tensor.numel() < 2 or _is_mask(tensor):
            return tensor
        # The values that an index may have are not known, except for those of the example.
        return tensor.flatten()[torch.randperm(tensor.numel())].reshape(tensor.shape)

    with fixed_seed(0):
        for _ in range(_RANDOM_INPUTS):
            yield map_tensors(inputs, drawn)


def _is_mask(tensor: Tensor) -> bool:
    return tensor.dtype is torch.bool or bool((tensor == tensor.flatten()[0]).all())


def _run(network: nn.Module, inputs: Any) -> tuple[Tensor, ...]:
    with torch.no_grad():
        return tensors_of(call_model(network, inputs))


def _check_repeatable(network: nn.Module, inputs: Any) -> None:
    first, second = _run(network, inputs), _run(network, inputs)
    for one, other in zip(first, second, strict=True):
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


def _difference(session: Session, network: nn.Module, inputs: Any, runtime: str) -> float:
    """Return the largest relative difference of the outputs on some inputs.

    Raises:
        EasyPrunerError: it is too large, or the runtime fails.
    """
    expected = _run(network, inputs)
    if any(bool(torch.isnan(tensor).any()) for tensor in expected):
        # Random inputs may be beyond what a network takes, such as the root of a number.
        return 0.0
    try:
        got = session.bind(inputs)()
    except EasyPrunerError:
        raise
    except Exception as error:  # runtimes raise errors of many classes
        raise EasyPrunerError(
            f'{runtime} cannot run the exported network: {first_lines(error)}'
        ) from error
    if [tuple(t.shape) for t in got] != [tuple(t.shape) for t in expected]:
        raise EasyPrunerError(
            f'{runtime} returns outputs of the shapes {_shapes(got)}, torch {_shapes(expected)}'
        )
    worst = max(map(relative_error, got, expected))
    half = any(tensor.dtype in (torch.float16, torch.bfloat16) for tensor in expected)
    limit = _HALF_TOLERANCE if half else TOLERANCE
    if not worst <= limit:
        raise EasyPrunerError(
            f'the outputs of {runtime} differ from those of torch by {worst:.1e} of the largest '
            f'value; expected at most {limit:g}'
        )
    return worst


def relative_error(got: Tensor, expected: Tensor) -> float:
    """Return the largest difference, relative to the largest value; infinity for NaN.

    Infinite values, such as scores of what is masked, have to be the same.
    """
    one, other = got.detach().double().cpu(), expected.detach().double().cpu()
    finite = torch.isfinite(other)
    if not torch.equal(one[~finite], other[~finite]):
        return math.inf
    one, other = one[finite], other[finite]
    if not other.numel():
        return 0.0
    largest = float((one - other).abs().max()) / (float(other.abs().max()) or 1.0)
    return largest if math.isfinite(largest) else math.inf


def _shapes(tensors: tuple[Tensor, ...]) -> str:
    return ', '.join(str(tuple(tensor.shape)) for tensor in tensors)
