"""Runtime: OpenVINO, on the CPU."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from easypruner import hookimpl
from easypruner.errors import EasyPrunerError
from easypruner.runtimes import Exported, Runtime, Session
from easypruner.runtimes.beside import Beside
from easypruner.runtimes.folding import fold_batch_norms
from easypruner.runtimes.locations import describe_locations, program_calls
from easypruner.runtimes.onnx_files import feeds_of
from easypruner.runtimes.program import Program, export_program, quiet
from easypruner.runtimes.reasons import first_lines

_UNKNOWN = re.compile(r'No conversion rule found for operations: (.+)')
_FAILED = re.compile(r'^-- (\S+) with a message:', re.MULTILINE)


class OpenVINO(Runtime):
    """Runs networks as OpenVINO IR in OpenVINO, on the CPU and in float32.

    OpenVINO computes in blocks of 16 channels on CPUs with AVX-512 and of 8 on others, and masks
    the rest of the last block. Widths off the grid waste a part of it, and odd ones are copied, but
    none leaves the fast implementation. The groups of a grouped convolution have blocks of their
    own, so their widths matter most.

    The size of the batch is fixed when the network is loaded for inputs, which is faster than a
    dynamic one.

    Use when:
        The network is deployed on CPUs of Intel.

    Fails when:
        torch.export cannot export the network, or OpenVINO has no implementation of an operation.

    Values:
        ``threads=1`` for latency on a shared server.
    """

    packages: ClassVar = {'openvino': 'openvino'}
    extra = 'openvino'
    widths: ClassVar = {'dense': 8, 'depthwise': 1, 'grouped': 16, 'first': 8, 'linear': 1}

    def export(self, network: nn.Module, inputs: Any, folder: Path, name: str) -> Exported:
        import openvino

        program = export_program(network, inputs)
        path = folder / f'{name}.xml'
        model = _named_model(program)
        openvino.save_model(model, path, compress_to_fp16=False)
        return Exported(
            path, (path, path.with_suffix('.bin')), program.dynamic_batch, program.notes
        )

    def load(self, path: Path) -> Session:
        import openvino

        if path.suffix != '.xml':
            raise EasyPrunerError(f'{str(path)!r} is not of OpenVINO; expected a file *.xml')
        try:
            return self._session(openvino.Core().read_model(path))
        except Exception as error:  # OpenVINO raises RuntimeError
            raise EasyPrunerError(
                f'OpenVINO cannot load {str(path)!r}: {first_lines(error)}'
            ) from error

    def fixed_session(self, network: nn.Module, inputs: Any) -> Session:
        return self._session(_named_model(export_program(network, inputs, dynamic=False)))

    def layer_sessions(self, layers: Sequence[tuple[nn.Module, Any]]) -> list[Session]:
        # One export for all of them: torch.export takes a while for each.
        import openvino

        whole = Beside([layer for layer, _ in layers]).eval()
        program = export_program(whole, tuple(inputs for _, inputs in layers))
        model = _model_of(program.exported)
        return [
            self._session(openvino.Model([result], [parameter]))
            for result, parameter in zip(model.get_results(), model.get_parameters(), strict=True)
        ]

    def _session(self, model: Any) -> Session:
        def bind(inputs: Any) -> Callable[[], tuple[Tensor, ...]]:
            names = [min(entry.names, default=f'input_{n}') for n, entry in enumerate(model.inputs)]
            arrays = list(feeds_of(names, inputs).values())
            request = self._compiled(model, [array.shape for array in arrays])

            def run() -> tuple[Tensor, ...]:
                return tuple(map(torch.as_tensor, request.infer(arrays).values()))

            return run

        return Session(bind)

    def _compiled(self, model: Any, shapes: Sequence[tuple[int, ...]]) -> Any:
        """Return what runs a model on inputs of given shapes."""
        import openvino

        if any(entry.get_partial_shape().is_dynamic for entry in model.inputs):
            model = model.clone()
            model.reshape(dict(zip(range(len(shapes)), shapes, strict=True)))
        settings = {
            'PERFORMANCE_HINT': 'LATENCY',
            'INFERENCE_NUM_THREADS': self.threads,
            'INFERENCE_PRECISION_HINT': 'f32',
            'ENABLE_CPU_PINNING': False,
        }
        return openvino.Core().compile_model(model, 'CPU', settings).create_infer_request()


def _named_model(program: Program) -> Any:
    """Convert a program, with batch norms folded and with the names of its tensors."""
    fold_batch_norms(program.exported)
    model = _model_of(program.exported)
    for entries, names in ((model.inputs, program.inputs), (model.outputs, program.outputs)):
        for entry, known in zip(entries, names, strict=True):
            entry.get_tensor().set_names({known})
    return model


def _model_of(program: Any) -> Any:
    """Convert a program of torch.export."""
    import openvino

    try:
        with quiet():
            return openvino.convert_model(program)
    except Exception as error:  # classes of errors that have no common base
        reason = _reason(error)
        raise EasyPrunerError(
            f'OpenVINO cannot convert the network: {reason}'
            f'{describe_locations(reason, program_calls(program))}'
        ) from error


def _reason(error: Exception) -> str:
    """Return which operations OpenVINO cannot convert."""
    unknown = _UNKNOWN.search(str(error))
    if unknown is not None:
        return f'it has no operation for {unknown[1]}'
    failed = sorted(set(_FAILED.findall(str(error))))
    return f'it fails on {", ".join(failed)}' if failed else first_lines(error)


easypruner_components = hookimpl(lambda: [OpenVINO])
