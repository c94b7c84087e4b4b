"""ONNX files: written by torch's exporter, with the weights inside the file."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from easypruner.errors import EasyPrunerError
from easypruner.runtimes.locations import describe_locations, program_calls
from easypruner.runtimes.program import (
    Program,
    export_program,
    input_tensors,
    quiet,
)
from easypruner.runtimes.reasons import reason_of
from easypruner.runtimes.runtime import Exported

_LARGEST = 1_900_000_000
"""Bytes of weights that still fit into one file: protobuf allows 2 GiB."""

_BATCH = 'batch'
"""The name of the dimension that may have any size."""


def write_onnx(network: nn.Module, inputs: Any, path: Path, *, dynamic: bool = True) -> Exported:
    """Write a network as an ONNX file. Batch norms are folded into convolutions.

    Args:
        network: the network, in evaluation mode.
        inputs: its example inputs.
        path: the file to write.
        dynamic: whether the batch may have any size, where the network allows it.

    Raises:
        EasyPrunerError: the network cannot be exported; with the exporter's reason.
    """
    _check_exporter()
    program = export_program(network, inputs, dynamic=dynamic)
    model = _onnx_of(network, program)
    _name_batch(model.model)
    weights = sum(t.numel() * t.element_size() for _, t in program.exported.state_dict.items())
    model.save(path, external_data=weights > _LARGEST)
    files = (path, *path.parent.glob(f'{path.name}.data'))
    return Exported(path, files, program.dynamic_batch, program.notes)


def _check_exporter() -> None:
    """Raise EasyPrunerError if torch's exporter does not take programs yet."""
    if inspect.signature(torch.onnx.export).parameters['args'].default is inspect.Parameter.empty:
        raise EasyPrunerError(
            f'torch {torch.__version__} cannot write a program of torch.export as ONNX, newer ones '
            'can: pip install --upgrade torch'
        )


def _onnx_of(network: nn.Module, program: Program) -> Any:
    try:
        with quiet():
            return torch.onnx.export(
                program.exported,
                dynamo=True,
                verbose=False,
                input_names=program.inputs,
                output_names=program.outputs,
            )
    except ImportError:
        raise
    except Exception as error:  # the exporter raises errors of many classes
        reason = reason_of(error, network)
        places = describe_locations(reason, program_calls(program.exported))
        raise EasyPrunerError(
            f'torch.onnx cannot export this {type(network).__name__}: {reason}{places}'
        ) from error


def _name_batch(model: Any) -> None:
    """Name the only dimension that may have any size, which torch names after a symbol.

    Args:
        model: the model of ``onnx_ir``.
    """
    import onnx_ir

    def is_symbol(dim: Any) -> bool:
        return isinstance(dim, onnx_ir.SymbolicDim) and dim.value is not None

    shapes = [value.shape or () for value in model.graph.inputs]
    symbols = {dim.value for shape in shapes for dim in shape if is_symbol(dim)}
    if len(symbols) != 1:
        return
    # A dimension may be computed, as in 2*s77.
    symbol = re.compile(rf'\b{re.escape(symbols.pop())}\b')
    values = {id(value): value for node in model.graph.all_nodes() for value in node.outputs}
    for value in (*model.graph.inputs, *model.graph.outputs, *values.values()):
        if value.shape is not None and any(map(is_symbol, value.shape)):
            dims = (symbol.sub(_BATCH, d.value) if is_symbol(d) else d for d in value.shape)
            value.shape = onnx_ir.Shape(dims)


def feeds_of(names: Sequence[str], inputs: Any) -> dict[str, Any]:
    """Return name of an input of an exported network -> array.

    Args:
        names: the names, in the order of the inputs.
        inputs: the inputs. A dict with these names may have another order, and further entries.

    Raises:
        EasyPrunerError: there are more or fewer tensors than names.
    """
    if isinstance(inputs, Mapping) and all(isinstance(inputs.get(n), Tensor) for n in names):
        tensors = tuple(inputs[name] for name in names)
    else:
        tensors = input_tensors(inputs)
    if len(tensors) != len(names):
        raise EasyPrunerError(
            f'the exported network has the inputs {", ".join(names)}, but got {len(tensors)} '
            'tensors; an input that the network does not use is not exported: leave it out'
        )
    arrays = (tensor.detach().cpu().numpy() for tensor in tensors)
    return dict(zip(names, arrays, strict=True))
