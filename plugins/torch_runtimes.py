"""Runtimes: torch itself, eager."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from easypruner import hookimpl
from easypruner.base.modules import copy_of
from easypruner.base.nested import map_tensors
from easypruner.errors import EasyPrunerError
from easypruner.graph.recording.tape import call_arguments
from easypruner.runtimes import Exported, Runtime, Session
from easypruner.runtimes.folding import fold_batch_norms
from easypruner.runtimes.program import export_program, first_lines, input_tensors, tensors_of


class _Torch(Runtime):
    """Runs networks in torch; exports them as programs of torch.export."""

    memory_format: torch.memory_format = torch.contiguous_format

    def export(self, network: nn.Module, inputs: Any, folder: Path, name: str) -> Exported:
        program = export_program(network, inputs)
        path = folder / f'{name}.pt2'
        fold_batch_norms(program.exported)
        torch.export.save(program.exported, path)
        notes = (program.reason,) if program.reason else ()
        return Exported(path, (path,), program.dynamic_batch, notes)

    def load(self, path: Path) -> Session:
        try:
            program = torch.export.load(path)
        except Exception as error:
            raise EasyPrunerError(f'{path} is not a torch program: {first_lines(error)}') from error
        return self._running(program.module(), input_tensors)

    def session(self, network: nn.Module, inputs: Any) -> Session:
        # The network itself, as users run it: a program has lost the calls of its modules.
        return self._running(copy_of(network).eval())

    def _running(
        self, network: nn.Module, prepare: Callable[[Any], Any] = lambda inputs: inputs
    ) -> Session:
        network = network.to(memory_format=self.memory_format)

        def bind(inputs: Any) -> Callable[[], tuple[Tensor, ...]]:
            ready = prepare(map_tensors(inputs, self._formatted))
            positional, named = call_arguments(ready)
            return lambda: tensors_of(network(*positional, **named))

        return Session(bind)

    def _formatted(self, tensor: Tensor) -> Tensor:
        images = tensor.dim() == 4
        return tensor.contiguous(memory_format=self.memory_format) if images else tensor


class TorchEager(_Torch):
    """Runs networks in torch, operation by operation, as ``model(inputs)`` does.

    Use when:
        The pruned network is used from Python, or no other runtime is installed.

    Fails when:
        The networks are small: calls of Python and of operations take the time then.

    Values:
        ``threads=1`` for latency on a shared server.
    """

    widths: ClassVar = {'dense': 16, 'depthwise': 16, 'grouped': 1, 'first': 16, 'linear': 1}


class TorchChannelsLast(_Torch):
    """Runs networks in torch with images and weights in the memory format channels_last.

    Use when:
        Convolutional networks run in torch: this is the faster format on most CPUs and on GPUs.

    Fails when:
        The forward has operations without an implementation for the format, which convert it.

    Values:
        See ``TorchEager``.
    """

    memory_format = torch.channels_last
    widths: ClassVar = {'dense': 16, 'depthwise': 16, 'grouped': 1, 'first': 16, 'linear': 1}


easypruner_components = hookimpl(lambda: [TorchEager, TorchChannelsLast])
