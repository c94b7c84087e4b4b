"""Runtime: ONNX Runtime, on the CPU."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from easypruner import hookimpl
from easypruner.errors import EasyPrunerError
from easypruner.runtimes import Exported, Runtime, Session
from easypruner.runtimes.beside import Beside
from easypruner.runtimes.onnx_files import feeds_of, write_onnx
from easypruner.runtimes.reasons import first_lines


class OnnxRuntime(Runtime):
    """Runs networks as ONNX files in ONNX Runtime, with its execution provider for CPUs.

    ONNX Runtime computes convolutions in blocks of 16 channels on CPUs with AVX-512 and of 8 on
    others. Widths that are multiples of 4 are padded to whole blocks; others leave the fast
    layout. A grouped convolution is in it only if each of its groups has whole blocks.

    Use when:
        The network is deployed as ONNX, on servers or desktops without a GPU.

    Fails when:
        Widths are not multiples of the grid: a depthwise convolution of 63 channels takes several
        times as long as one of 64.

    Values:
        ``threads=1`` for latency on a shared server.
    """

    packages: ClassVar = {'onnxruntime': 'onnxruntime', 'onnx': 'onnx', 'onnxscript': 'onnxscript'}
    extra = 'onnx'
    reported = True
    widths: ClassVar = {'dense': 16, 'depthwise': 16, 'grouped': 16, 'first': 16, 'linear': 1}

    def export(self, network: nn.Module, inputs: Any, folder: Path, name: str) -> Exported:
        return write_onnx(network, inputs, folder / f'{name}.onnx')

    def load(self, path: Path) -> Session:
        return self._session(str(path))

    def fixed_session(self, network: nn.Module, inputs: Any) -> Session:
        folder = tempfile.TemporaryDirectory(prefix='easypruner-')
        file = Path(folder.name) / 'network.onnx'
        write_onnx(network, inputs, file, dynamic=False)

        def bind(inputs: Any) -> Callable[[], tuple[Tensor, ...]]:
            return self.load(file).bind(inputs)

        return Session(bind, folder)

    def layer_sessions(self, layers: Sequence[tuple[nn.Module, Any]]) -> list[Session]:
        # One export for all of them: each takes a second on its own.
        import onnx

        with tempfile.TemporaryDirectory(prefix='easypruner-') as folder:
            whole = Beside([layer for layer, _ in layers])
            file = Path(folder) / 'layers.onnx'
            write_onnx(whole.eval(), tuple(inputs for _, inputs in layers), file)
            model = onnx.load(file)
        extractor = onnx.utils.Extractor(model)
        names = zip(model.graph.input, model.graph.output, strict=True)
        return [
            self._session(extractor.extract_model([i.name], [o.name]).SerializeToString())
            for i, o in names
        ]

    def _session(self, model: str | bytes) -> Session:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            running = onnxruntime.InferenceSession(
                model, options, providers=['CPUExecutionProvider']
            )
        except Exception as error:  # classes of errors that have no common base
            raise EasyPrunerError(
                f'ONNX Runtime cannot load the network: {first_lines(error)}'
            ) from error
        names = [value.name for value in running.get_inputs()]

        def bind(inputs: Any) -> Any:
            feeds = feeds_of(names, inputs)
            return lambda: tuple(torch.as_tensor(value) for value in running.run(None, feeds))

        return Session(bind)


easypruner_components = hookimpl(lambda: [OnnxRuntime])
