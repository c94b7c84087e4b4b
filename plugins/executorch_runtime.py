"""Runtime: ExecuTorch, with the XNNPACK backend for CPUs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from easypruner import hookimpl
from easypruner.errors import EasyPrunerError
from easypruner.runtimes import Exported, Runtime, Session
from easypruner.runtimes.locations import describe_locations, program_calls
from easypruner.runtimes.program import (
    export_program,
    input_tensors,
    quiet,
    tensors_of,
)
from easypruner.runtimes.reasons import first_lines

_METHOD = 'forward'
_POOL = [0]
"""The number of the pool of threads. A method that was loaded with an earlier one must not run."""


class ExecuTorch(Runtime):
    """Runs networks in ExecuTorch, with XNNPACK on the CPU and in float32.

    An export plans the memory of a pass, so it fixes the size of the batch to that of the example
    inputs. What XNNPACK does not implement is computed by the portable operators of ExecuTorch,
    which are slow.

    XNNPACK computes 16 output channels at a time with AVX-512 and 8 on ARM, and pads the last tile.
    Its grouped convolutions pad each group on its own. The grid is the documented one by default: a
    measurement would export a hundred layers, for a second each.

    Use when:
        The network is deployed in an app on a phone or an embedded device.

    Fails when:
        torch.export cannot export the network, or the portable operators lack one of its
        operations.

    Values:
        Example inputs with the size of the batch of the app, mostly 1.
    """

    packages: ClassVar = {'executorch': 'executorch'}
    extra = 'executorch'
    widths: ClassVar = {'dense': 16, 'depthwise': 4, 'grouped': 16, 'first': 8, 'linear': 1}

    def __init__(
        self, threads: int = 1, grid: int | Literal['measured', 'documented'] = 'documented'
    ) -> None:
        super().__init__(threads, grid)

    def export(self, network: nn.Module, inputs: Any, folder: Path, name: str) -> Exported:
        program = export_program(network, inputs, dynamic=False)
        path = folder / f'{name}.pte'
        path.write_bytes(_lowered({_METHOD: program.exported}))
        return Exported(path, (path,), program.dynamic_batch, program.notes)

    def load(self, path: Path) -> Session:
        return self._sessions(path.read_bytes(), [_METHOD])[0]

    def layer_sessions(self, layers: Sequence[tuple[nn.Module, Any]]) -> list[Session]:
        # One file for all of them, with a method each.
        programs = {
            f'layer{number}': export_program(layer, inputs, dynamic=False).exported
            for number, (layer, inputs) in enumerate(layers)
        }
        return self._sessions(_lowered(programs), list(programs))

    def _sessions(self, content: bytes, methods: Sequence[str]) -> list[Session]:
        from executorch.runtime import Runtime as Loader

        def loading(name: str) -> Callable[[], Any]:
            def load() -> Any:
                _use_threads(self.threads)
                return program.load_method(name)

            return load

        try:
            program = Loader.get().load_program(content)
            loaders = [loading(name) for name in methods]
            methods_loaded = [load() for load in loaders]
        except Exception as error:  # classes of errors that have no common base
            raise EasyPrunerError(
                f'ExecuTorch cannot load the network: {first_lines(error)}'
            ) from error
        return [
            Session(self._bind(method, load), keep=(content, program))
            for method, load in zip(methods_loaded, loaders, strict=True)
        ]

    def _bind(
        self, method: Any, load: Callable[[], Any]
    ) -> Callable[[Any], Callable[[], tuple[Tensor, ...]]]:
        pool = _POOL[0]

        def bind(inputs: Any) -> Callable[[], tuple[Tensor, ...]]:
            tensors = [tensor.detach().cpu().contiguous() for tensor in input_tensors(inputs)]

            def run() -> tuple[Tensor, ...]:
                nonlocal method, pool
                _use_threads(self.threads)
                if pool != _POOL[0]:
                    method, pool = load(), _POOL[0]
                return tensors_of(method.execute(tensors))

            return run

        return bind


def _use_threads(count: int) -> None:
    """Let ExecuTorch use a number of threads, which all methods share."""
    from executorch.extension.pybindings import portable_lib as lib

    if lib._threadpool_get_thread_count() != count:
        lib._unsafe_reset_threadpool(count)
        _POOL[0] += 1


def _lowered(programs: dict[str, Any]) -> bytes:
    """Compile programs of torch.export, each as a method of one file."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    try:
        with quiet():
            lowered = to_edge_transform_and_lower(programs, partitioner=[XnnpackPartitioner()])
            return bytes(lowered.to_executorch().buffer)
    except Exception as error:  # classes of errors that have no common base
        reason = first_lines(error)
        calls = (call for program in programs.values() for call in program_calls(program))
        raise EasyPrunerError(
            f'ExecuTorch cannot compile the network: {reason}{describe_locations(reason, calls)}'
        ) from error


easypruner_components = hookimpl(lambda: [ExecuTorch])
