"""The program of a network: torch.export, with a batch of any size where the network allows it."""

from __future__ import annotations

import inspect
import io
import itertools
import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from easypruner.base.describe import describe
from easypruner.base.modules import copy_of, evaluating, unwrapped
from easypruner.base.nested import map_tensors, tensors_in
from easypruner.base.settings import changed_setting
from easypruner.errors import EasyPrunerError
from easypruner.graph.recording.input_advice import advise_inputs
from easypruner.graph.recording.tape import call_arguments, call_model
from easypruner.graph.recording.wrappers import check_values, find_traceable
from easypruner.runtimes.difference import relative_error
from easypruner.runtimes.plain_weights import with_plain_weights
from easypruner.runtimes.reasons import first_lines, reason_of

_ROUNDING = 1e-2
_WORD = re.compile(r'[A-Za-z_]\w*')


@dataclass(frozen=True)
class Program:
    """A network as torch.export sees it: from the tensors of its inputs to those of its outputs.

    Attributes:
        exported: the program.
        tensors: the positional arguments with which it was exported.
        inputs: the name of each argument.
        outputs: the name of each output.
        reason: why the size of the batch is fixed; empty if it is not.
    """

    exported: ExportedProgram
    tensors: tuple[Tensor, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    reason: str = ''

    @property
    def dynamic_batch(self) -> bool:
        """Whether batches of any size can be passed."""
        return not self.reason

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user has to know about the program."""
        return (self.reason,) if self.reason else ()


class FromTensors(nn.Module):
    """A network that takes the tensors of its inputs in order, and returns those of its outputs.

    All else among the inputs, such as ``mode='tensor'``, is fixed. Outputs may be dicts or
    dataclasses: what runs without Python knows neither. The inputs stay as they are, also if the
    network changes its own in place.

    Args:
        network: the network; it runs once.
        inputs: its example inputs.
    """

    def __init__(self, network: nn.Module, inputs: Any) -> None:
        super().__init__()
        self.network = network
        self._changes_inputs = _changes_inputs(network, inputs)
        # Only the places of the tensors are needed, not their values.
        self._template = map_tensors(inputs, lambda tensor: tensor.to('meta'))

    def forward(self, *tensors: Tensor) -> Any:
        """Run the network; a single output is returned without a tuple."""
        rest = iter(tensor.clone() if self._changes_inputs else tensor for tensor in tensors)
        inputs = map_tensors(self._template, lambda _: next(rest))
        found = _apart(tensors_of(call_model(self.network, inputs)), tensors)
        return found[0] if len(found) == 1 else found


def _changes_inputs(network: nn.Module, inputs: Any) -> bool:
    """Return whether a network changes its inputs in place."""
    copies = map_tensors(inputs, torch.clone)
    before = [tensor._version for tensor in input_tensors(copies)]
    with torch.no_grad():
        call_model(network, copies)
    return before != [tensor._version for tensor in input_tensors(copies)]


def _apart(outputs: tuple[Tensor, ...], inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return views of outputs that are inputs or other outputs, which not every format allows."""
    seen = set(map(id, inputs))
    found = []
    for output in outputs:
        # Converters take a copy for the tensor itself.
        found.append(output.unsqueeze(0).squeeze(0) if id(output) in seen else output)
        seen.add(id(output))
    return tuple(found)


def export_program(network: nn.Module, inputs: Any, *, dynamic: bool = True) -> Program:
    """Export a network by torch.export, on the CPU.

    The batch is the first dimension of all tensors of the inputs that have dimensions. It may have
    any size afterwards, unless the tensors differ in it or the forward needs its value.

    Args:
        network: the network, in evaluation mode.
        inputs: its example inputs.
        dynamic: whether the batch may have any size, where the network allows it.

    Raises:
        EasyPrunerError: torch cannot export the network; with its reason.
    """
    network = with_plain_weights(on_cpu(find_traceable(network)))
    inputs = map_tensors(inputs, lambda t: t.detach().cpu())
    kind = type(network).__name__
    with evaluating(network):
        outputs = _output_names(network, inputs)
        whole = FromTensors(network, inputs).eval()
        tensors = input_tensors(inputs)
        names = _input_names(network, inputs)
        outputs = _distinct([*names, *outputs])[len(names) :]
        reason = 'the inputs do not share their first dimension'
        sizes = {len(tensor) for tensor in tensors if tensor.dim()}
        if not dynamic:
            reason = 'the size of the batch is that of the example inputs'
        elif sizes == {0}:
            raise EasyPrunerError(
                'the example inputs have no sample; expected a batch of 1 or more'
            )
        elif len(sizes) == 1:
            try:
                # A dimension of 1 would be taken as a fixed number.
                two = tuple(torch.cat([t, t]) if _is_single(t) else t for t in tensors)
                exported = _export(whole, two, dynamic=True)
                if _computes(exported, whole, tuple(t[:1] if t.dim() else t for t in tensors)):
                    return Program(exported, two, names, outputs)
                reason = 'the forward computes a batch of 1 differently from larger ones'
            except Exception as error:  # torch.export raises errors of many classes
                found = reason_of(error, network, __file__)
                reason = f'torch.export fixes the size of the batch: {found}'
        try:
            exported = _export(whole, tensors, dynamic=False)
        except Exception as error:
            raise EasyPrunerError(
                f'torch.export cannot export this {kind}: {reason_of(error, network, __file__)}'
            ) from error
        return Program(exported, tensors, names, outputs, reason)


def _computes(exported: ExportedProgram, network: nn.Module, tensors: tuple[Tensor, ...]) -> bool:
    """Return whether a program has the outputs of its network, if that takes these inputs.

    Torch takes a branch for a batch of 1 as one that no batch enters.
    """
    with torch.no_grad():
        try:
            expected = tensors_of(network(*tensors))
        except Exception:  # a forward raises errors of any class
            return True
        got = tensors_of(exported.module()(*tensors))
    pairs = zip(got, expected, strict=True)
    return all(relative_error(*pair) < _ROUNDING or bool(pair[1].isnan().any()) for pair in pairs)


def _is_single(tensor: Tensor) -> bool:
    return tensor.dim() > 0 and len(tensor) == 1


def _export(network: nn.Module, tensors: tuple[Tensor, ...], *, dynamic: bool) -> ExportedProgram:
    batch = Dim('batch', min=1)
    each = tuple({0: batch} if tensor.dim() else None for tensor in tensors)
    shapes: Any = {'tensors': each} if dynamic else None
    with quiet(), torch.no_grad():
        return torch.export.export(network, tensors, dynamic_shapes=shapes, strict=False)


def on_cpu(network: nn.Module) -> nn.Module:
    """Return the network inside wrappers, or a copy if it is on another device or compiled.

    Raises:
        TraceError: a parameter or buffer has no values.
    """
    network = unwrapped(network)
    if not isinstance(network, torch.jit.ScriptModule):
        check_values(network, 'a runtime')
    tensors = (*network.parameters(), *network.buffers())
    # A copy is not compiled any more. Each shape of the checks would be compiled anew.
    is_compiled = any(module._compiled_call_impl is not None for module in network.modules())
    if all(tensor.device.type == 'cpu' for tensor in tensors) and not is_compiled:
        return network
    return copy_of(network).cpu()


def advise_dtype(network: nn.Module) -> str:
    """Return what to do if a runtime cannot take a network whose weights are not float32; else ''.

    It is to be appended to the reason of the runtime.
    """
    dtypes = {p.dtype for p in network.parameters() if p.is_floating_point()} - {torch.float32}
    if not dtypes:
        return ''
    names = ' and '.join(sorted(str(dtype).removeprefix('torch.') for dtype in dtypes))
    return (
        f'; its weights are {names}, and most runtimes expect float32: give network.float() and '
        'inputs of float32'
    )


@contextmanager
def advising_dtype(network: nn.Module) -> Iterator[None]:
    """Append what to do about the type of a network's weights to the error of a runtime.

    Raises:
        EasyPrunerError: the block has raised one.
    """
    try:
        yield
    except EasyPrunerError as error:
        advice = advise_dtype(network)
        if not advice:
            raise
        raise EasyPrunerError(f'{error}{advice}') from error


def input_tensors(inputs: Any) -> tuple[Tensor, ...]:
    """Return the tensors of example inputs, in order."""
    found: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    map_tensors(inputs, note)
    return tuple(found)


def first_outputs(network: nn.Module, inputs: Any) -> tuple[tuple[str, Tensor], ...]:
    """Run a network on its example inputs, and return (path, tensor) of its outputs.

    Raises:
        EasyPrunerError: the forward fails, or returns no tensors.
    """
    kind = type(network).__name__
    with torch.no_grad():
        try:
            outputs = call_model(network, map_tensors(inputs, torch.clone))
        except Exception as error:  # a forward raises errors of any class
            raise EasyPrunerError(
                f'the forward pass of {kind} fails on the given example inputs: '
                f'{type(error).__name__}: {first_lines(error)}{advise_inputs(inputs)}'
            ) from error
    found = tuple(tensors_in(outputs))
    if not found:
        raise EasyPrunerError(
            f'this {kind} returns {describe(outputs)}, in which there are no tensors; a runtime '
            'returns tensors: give a network whose forward returns them'
        )
    return found


def _output_names(network: nn.Module, inputs: Any) -> tuple[str, ...]:
    """Return a name for each output tensor of a network."""
    words = [_WORD.search(path) for path, _ in first_outputs(network, inputs)]
    return _distinct([word[0] if word else 'output' for word in words])


def _input_names(network: nn.Module, inputs: Any) -> tuple[str, ...]:
    """Return a name for each input tensor: that of its argument."""
    positional, named = call_arguments(inputs)
    ordered = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(network.forward).parameters.values()
    known = [parameter.name for parameter in parameters if parameter.kind in ordered]
    known += [f'input_{number}' for number in range(len(known), len(positional))]
    arguments = [*zip(known, positional, strict=False), *named.items()]
    return _distinct([name for name, value in arguments for _ in input_tensors(value)])


def _distinct(names: Sequence[str]) -> tuple[str, ...]:
    """Number the names that occur again, by numbers that make no other name of the list."""
    taken, found = set(names), []
    for name in names:
        if name not in found:
            found.append(name)
            continue
        number = next(n for n in itertools.count(1) if f'{name}_{n}' not in taken)
        found.append(f'{name}_{number}')
        taken.add(found[-1])
    return tuple(found)


def _loader() -> Any:
    return torch.load


def load_program(path: Path) -> ExportedProgram:
    """Load a program of torch.export, and never unpickle its weights, as torch before 2.6 would."""
    safe: Any = partial(torch.load, weights_only=True)
    with changed_setting(_loader, partial(setattr, torch, 'load'), safe), quiet():
        return torch.export.load(path)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the warnings and logs of an exporter for a block."""
    before = logging.root.manager.disable
    # A failing exporter prints whole programs, while its error has the reason.
    with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
        warnings.simplefilter('ignore')
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(before)


def tensors_of(outputs: Any) -> tuple[Tensor, ...]:
    """Return the tensors of outputs, in order."""
    return tuple(tensor for _, tensor in tensors_in(outputs))


def outputs_of(network: nn.Module, inputs: Any) -> tuple[Tensor, ...]:
    """Return the tensors of the outputs of a network, which may change the inputs that it gets."""
    with torch.no_grad():
        return tensors_of(call_model(network, map_tensors(inputs, torch.clone)))
