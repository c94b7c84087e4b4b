"""Runtime: TensorRT, on GPUs of NVIDIA. Written by its documentation, and not tested yet."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from easypruner import hookimpl
from easypruner.base.checks import check_count, check_name
from easypruner.errors import EasyPrunerError
from easypruner.runtimes import Exported, Runtime, Session
from easypruner.runtimes.onnx_files import write_onnx
from easypruner.runtimes.program import input_tensors

PRECISIONS = ('float32', 'tf32', 'float16')


class TensorRT(Runtime):
    """Runs networks in TensorRT, on a GPU of NVIDIA; written without one, and **not tested**.

    A network is exported as ONNX, and TensorRT builds an engine for the GPU of this machine. The
    engine does not run on another model of GPU, or with another version of TensorRT.

    The grid is that of NVIDIA's guide to matrix multiplications: rows of 128 bytes, which are 32
    numbers in TF32. In float16 it says 64, and multiples of 8 are usable.

    Use when:
        The network is deployed on GPUs of NVIDIA.

    Fails when:
        No GPU is there, or the ONNX parser of TensorRT does not know an operation.

    Values:
        ``precision='float16'`` for speed.

    Args:
        precision: the number format of layers: ``'float32'``, ``'tf32'`` or ``'float16'``.
            Outputs differ from those of torch by about 1e-6, 1e-3 or 1e-2.
        largest_batch: the largest batch that an engine accepts.
    """

    packages: ClassVar = {'tensorrt': 'tensorrt', 'onnx': 'onnx', 'onnxscript': 'onnxscript'}
    extra = 'tensorrt'
    widths: ClassVar = {'dense': 32, 'depthwise': 8, 'grouped': 32, 'first': 32, 'linear': 32}
    clock = 'wall'

    def __init__(
        self,
        threads: int = 1,
        grid: int | Literal['measured', 'documented'] = 'measured',
        precision: Literal['float32', 'tf32', 'float16'] = 'float32',
        largest_batch: int = 64,
    ) -> None:
        super().__init__(threads, grid)
        self.precision = check_name(precision, 'precision', self.name, PRECISIONS)
        self.largest_batch = check_count(largest_batch, 'largest_batch', self.name)

    def check(self) -> None:
        super().check()
        if not torch.cuda.is_available():
            raise EasyPrunerError(
                f'runtime {self.name!r} needs a GPU of NVIDIA, and torch finds none: run it on a '
                'machine that has one, with a build of torch for CUDA'
            )

    def export(self, network: nn.Module, inputs: Any, folder: Path, name: str) -> Exported:
        with tempfile.TemporaryDirectory(prefix='easypruner-') as work:
            source = write_onnx(network, inputs, Path(work) / 'network.onnx')
            plan = self._build(source.path)
        path = folder / f'{name}.engine'
        path.write_bytes(plan)
        return Exported(path, (path,), source.dynamic_batch, source.notes)

    def _build(self, path: Path) -> bytes:
        """Build an engine from an ONNX file."""
        import tensorrt as trt

        logger = trt.Logger(trt.Logger.ERROR)
        builder = trt.Builder(logger)
        network = builder.create_network(0)
        parser = trt.OnnxParser(network, logger)
        if not parser.parse_from_file(str(path)):
            reasons = '; '.join(parser.get_error(n).desc() for n in range(parser.num_errors))
            raise EasyPrunerError(f'TensorRT cannot read the network: {reasons}')
        config = builder.create_builder_config()
        if self.precision == 'float32':
            config.clear_flag(trt.BuilderFlag.TF32)
        if self.precision == 'float16':
            config.set_flag(trt.BuilderFlag.FP16)
        self._allow_batches(builder, network, config)
        plan = builder.build_serialized_network(network, config)
        if plan is None:
            raise EasyPrunerError('TensorRT cannot build an engine; its log has the reason')
        return bytes(plan)

    def _allow_batches(self, builder: Any, network: Any, config: Any) -> None:
        """Allow batches of any size up to the largest, if the network does."""
        profile = builder.create_optimization_profile()
        for number in range(network.num_inputs):
            entry = network.get_input(number)
            sizes = (1, 1, self.largest_batch)
            shapes = [[size if n < 0 else n for n in entry.shape] for size in sizes]
            profile.set_shape(entry.name, *map(tuple, shapes))
        config.add_optimization_profile(profile)

    def load(self, path: Path) -> Session:
        import tensorrt as trt

        runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))
        engine = runtime.deserialize_cuda_engine(path.read_bytes())
        if engine is None:
            raise EasyPrunerError(
                f'TensorRT cannot load {str(path)!r}: it is damaged, or was built with another '
                'version or for another GPU; export it again here'
            )
        return Session(lambda inputs: _bound(engine, inputs), keep=runtime)


def _bound(engine: Any, inputs: Any) -> Callable[[], tuple[Tensor, ...]]:
    """Return a function that runs an engine on inputs."""
    import tensorrt as trt

    context = engine.create_execution_context()
    names = [engine.get_tensor_name(number) for number in range(engine.num_io_tensors)]
    is_input = {n: engine.get_tensor_mode(n) == trt.TensorIOMode.INPUT for n in names}
    tensors = input_tensors(inputs)
    given = [name for name in names if is_input[name]]
    if len(given) != len(tensors):
        raise EasyPrunerError(
            f'the engine has the inputs {", ".join(given)}, but got {len(tensors)} tensors'
        )
    buffers = {
        name: tensor.detach().to('cuda', _dtype(engine, name)).contiguous()
        for name, tensor in zip(given, tensors, strict=True)
    }
    for name, tensor in buffers.items():
        if not context.set_input_shape(name, tuple(tensor.shape)):
            raise EasyPrunerError(
                f'the engine does not take {name!r} of shape {tuple(tensor.shape)}; raise '
                'largest_batch and export again'
            )
    for name in names:
        if not is_input[name]:
            shape = tuple(context.get_tensor_shape(name))
            buffers[name] = torch.empty(shape, dtype=_dtype(engine, name), device='cuda')
        context.set_tensor_address(name, buffers[name].data_ptr())
    streams: Any = torch.cuda
    stream = streams.Stream()
    streams.synchronize()
    outputs = tuple(buffers[name] for name in names if not is_input[name])

    def run() -> tuple[Tensor, ...]:
        context.execute_async_v3(stream.cuda_stream)
        stream.synchronize()
        return outputs

    return run


def _dtype(engine: Any, name: str) -> torch.dtype:
    """Return torch's type of an input or output of an engine."""
    import numpy as np
    import tensorrt as trt

    return torch.from_numpy(np.empty(0, trt.nptype(engine.get_tensor_dtype(name)))).dtype


easypruner_components = hookimpl(lambda: [TensorRT])
