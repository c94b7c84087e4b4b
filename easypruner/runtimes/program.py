"""The program of a network: torch.export, with a batch of any size where the network allows it."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from easypruner.base.nested import map_tensors, tensors_in
from easypruner.errors import EasyPrunerError
from easypruner.graph.recording.tape import call_arguments

_LINES = 3
"""The number of lines of torch's reason that a message shows."""


@dataclass(frozen=True)
class Program:
    """A network as torch.export sees it.

    Attributes:
        exported: the program.
        positional: the positional arguments with which it was exported.
        named: the keyword arguments.
        reason: why the size of the batch is fixed; empty if it is not.
    """

    exported: ExportedProgram
    positional: tuple[Any, ...]
    named: dict[str, Any]
    reason: str = ''

    @property
    def dynamic_batch(self) -> bool:
        """Whether batches of any size can be passed."""
        return not self.reason


def export_program(network: nn.Module, inputs: Any) -> Program:
    """Export a network by torch.export.

    The batch is the first dimension of all tensors of the inputs. It may have any size afterwards,
    unless the tensors differ in it or the forward needs its value.

    Args:
        network: the network, in evaluation mode.
        inputs: its example inputs.

    Raises:
        EasyPrunerError: torch cannot export the network; with its reason.
    """
    batch = {tensor.shape[0] if tensor.dim() else 0 for _, tensor in tensors_in(inputs)}
    if len(batch) != 1 or 0 in batch:
        reason = 'the inputs do not share their first dimension'
    else:
        # A dimension of 1 would be taken as a fixed number.
        two = map_tensors(inputs, lambda t: torch.cat([t, t]) if len(t) == 1 else t)
        try:
            return _export(network, two, dynamic=True)
        except Exception as error:  # torch.export raises errors of many classes
            reason = f'torch.export fixes the size of the batch: {first_lines(error)}'
    try:
        program = _export(network, inputs, dynamic=False)
    except Exception as error:
        raise EasyPrunerError(
            f'torch.export cannot export this {type(network).__name__}: {first_lines(error)}'
        ) from error
    return Program(program.exported, program.positional, program.named, reason)


def _export(network: nn.Module, inputs: Any, *, dynamic: bool) -> Program:
    positional, named = call_arguments(inputs)
    shapes: Any = None
    if dynamic:
        batch = Dim('batch', min=1)

        def dimensions(value: Any) -> Any:
            return map_tensors(value, lambda t: {0: batch})  # type: ignore[arg-type,return-value]

        shapes = (*dimensions(positional), *dimensions(named).values())
        shapes = dict(zip(_names(network, positional, named), shapes, strict=True))
    with quiet(), torch.no_grad():
        exported = torch.export.export(
            network, positional, named or None, dynamic_shapes=shapes, strict=False
        )
    return Program(exported, positional, named)


def _names(network: nn.Module, positional: tuple[Any, ...], named: dict[str, Any]) -> list[str]:
    """Return the names of the arguments of a forward, in order."""
    import inspect

    signature = inspect.signature(network.forward)
    return list(signature.bind(*positional, **named).arguments)


def first_lines(error: Exception) -> str:
    """Return the first lines of a message that say something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return ' '.join(lines[:_LINES]) or type(error).__name__


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the warnings and logs of an exporter for a block."""
    before = logging.root.manager.disable
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(before)


def tensors_of(outputs: Any) -> tuple[Tensor, ...]:
    """Return the tensors of outputs, in order."""
    return tuple(tensor for _, tensor in tensors_in(outputs))
