"""Runtimes: torch itself, eager and compiled."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from easypruner import hookimpl
from easypruner.base.modules import sharing
from easypruner.base.nested import map_tensors
from easypruner.errors import EasyPrunerError
from easypruner.graph.recording.tape import call_arguments
from easypruner.runtimes import Exported, Runtime, Session
from easypruner.runtimes.folding import fold_batch_norms
from easypruner.runtimes.program import (
    export_program,
    input_tensors,
    load_program,
    tensors_of,
)
from easypruner.runtimes.reasons import first_lines
from easypruner.runtimes.timing import torch_threads


class _Torch(Runtime):
    """Runs networks in torch; exports them as programs of torch.export."""

    memory_format: torch.memory_format = torch.contiguous_format

    def export(self, network: nn.Module, inputs: Any, folder: Path, name: str) -> Exported:
        program = export_program(network, inputs)
        path = folder / f'{name}.pt2'
        fold_batch_norms(program.exported)
        torch.export.save(program.exported, path)
        return Exported(path, (path,), program.dynamic_batch, program.notes)

    def load(self, path: Path) -> Session:
        try:
            program = load_program(path)
        except Exception as error:  # classes of errors that have no common base
            raise EasyPrunerError(f'{path} is not a torch program: {first_lines(error)}') from error
        return self._running(program.module(), input_tensors)

    def session(self, network: nn.Module, inputs: Any) -> Session:
        # The network itself, as users run it: a program has lost the calls of its modules.
        return self._running(network)

    def _running(
        self, network: nn.Module, prepare: Callable[[Any], Any] = lambda inputs: inputs
    ) -> Session:
        running = self._prepared(sharing(network, self._formatted).eval())

        def bind(inputs: Any) -> Callable[[], tuple[Tensor, ...]]:
            positional, named = call_arguments(prepare(map_tensors(inputs, self._formatted)))

            @torch.no_grad()
            def run() -> tuple[Tensor, ...]:
                with torch_threads(self.threads):
                    return tensors_of(running(*positional, **named))

            return run

        return Session(bind)

    def _prepared(self, network: nn.Module) -> Callable[..., Any]:
        """Return what is called: the network itself."""
        return network

    def _formatted(self, tensor: Tensor) -> Tensor:
        images = tensor.dim() == 4
        return tensor.contiguous(memory_format=self.memory_format) if images else tensor


class TorchEager(_Torch):
    """Runs networks in torch, operation by operation, as ``model(inputs)`` does.

    Convolutions are those of oneDNN on CPUs of Intel and AMD. It computes in blocks of 16 channels
    with AVX-512, and pads the last one: 65 channels take as long as 80. Depthwise convolutions and
    linear layers hardly step. Each group of a grouped convolution has blocks of its own.

    Use when:
        The pruned network is used from Python, or no other runtime is installed.

    Fails when:
        The networks are small: calls of Python and of operations take the time then.

    Values:
        ``threads=1`` for latency on a shared server.
    """

    reported = True
    widths: ClassVar = {'dense': 16, 'depthwise': 4, 'grouped': 16, 'first': 16, 'linear': 1}


class TorchChannelsLast(_Torch):
    """Runs networks in torch with images and weights in the memory format channels_last.

    oneDNN then reads the images as they are and steps less than in the other format: the last block
    of output channels is the only one that is not full.

    Use when:
        Convolutional networks run in torch: this is the faster format on most CPUs and on GPUs.

    Fails when:
        The forward has operations without an implementation for the format, which convert it.

    Values:
        See ``TorchEager``.
    """

    memory_format = torch.channels_last
    widths: ClassVar = {'dense': 16, 'depthwise': 4, 'grouped': 16, 'first': 4, 'linear': 1}


class TorchCompile(_Torch):
    """Runs networks that ``torch.compile`` has compiled, with its default compiler.

    The first pass on inputs of a new shape compiles, which takes seconds to minutes and needs a
    C++ compiler on the CPU. An exported program is compiled where it is loaded. Convolutions are
    those of torch; what is between them is fused.

    Its grid is the documented one by default: a measurement would compile a hundred layers.

    Use when:
        The pruned network stays in Python and runs for long.

    Fails when:
        Each input has another shape, or the forward cannot be compiled as a whole; torch then runs
        parts of it as they are.

    Values:
        See ``TorchEager``.
    """

    widths: ClassVar = {'dense': 16, 'depthwise': 4, 'grouped': 16, 'first': 16, 'linear': 1}

    def __init__(
        self, threads: int = 1, grid: int | Literal['measured', 'documented'] = 'documented'
    ) -> None:
        super().__init__(threads, grid)

    def check(self) -> None:
        compilers = os.environ.get('CXX', 'g++'), 'clang++', 'cl'
        if not any(map(shutil.which, compilers)):
            raise EasyPrunerError(
                f'runtime {self.name!r} needs a C++ compiler, and none of {", ".join(compilers)} '
                'is on the path: install one, or set CXX'
            )

    def _prepared(self, network: nn.Module) -> Callable[..., Any]:
        return torch.compile(network)


easypruner_components = hookimpl(lambda: [TorchEager, TorchChannelsLast, TorchCompile])
