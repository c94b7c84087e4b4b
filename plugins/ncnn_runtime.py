"""Runtime: ncnn, on the CPU. Networks are converted by pnnx."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from easypruner import hookimpl
from easypruner.base.modules import evaluating
from easypruner.base.nested import map_tensors
from easypruner.errors import EasyPrunerError
from easypruner.runtimes import Exported, Runtime, Session
from easypruner.runtimes.beside import Beside
from easypruner.runtimes.locations import describe_locations, traced_calls
from easypruner.runtimes.program import FromTensors, input_tensors, on_cpu, tensors_of
from easypruner.runtimes.reasons import first_lines
from easypruner.runtimes.torchscript import trace_network

_TYPES = {torch.float32: 'f32', torch.int64: 'i64', torch.int32: 'i32'}
"""Type of an input -> its name in pnnx."""
_TOLERANCE = 1e-3
_UNKNOWN = re.compile(r'Unknown builtin op: ([\w:]+)')
_FAILED = re.compile(r'^\w*Error: .+$', re.MULTILINE)
_ENDED = 'what():'
"""What is before the reason of a program of C++ that ends by an error."""
_FOREIGN = re.compile(r'^([\w]+[.:][\w.:]+)\s', re.MULTILINE)
"""A layer in a file of ncnn that is none of ncnn's: pnnx has left it as it was."""


class Ncnn(Runtime):
    """Runs networks in ncnn, on the CPU and in float32.

    ncnn packs 16, 8 or 4 channels into one vector, the largest of these that divides the number of
    channels and that the CPU has: 4 on most phones. Other numbers are computed one channel at a
    time. A grouped convolution is packed only if the channels of each group are.

    The converter pnnx decides which dimension is the batch. An export therefore runs the result
    once, and is refused if its outputs are not those of the network.

    Use when:
        The network is deployed on phones and small boards.

    Fails when:
        pnnx does not know an operation, or the forward computes with the size of the batch.

    Values:
        ``threads`` is the number of large cores of the device.
    """

    packages: ClassVar = {'ncnn': 'ncnn', 'pnnx': 'pnnx'}
    extra = 'ncnn'
    widths: ClassVar = {'dense': 8, 'depthwise': 8, 'grouped': 16, 'first': 4, 'linear': 1}

    def export(self, network: nn.Module, inputs: Any, folder: Path, name: str) -> Exported:
        network, inputs = on_cpu(network), map_tensors(inputs, lambda t: t.detach().cpu())
        tensors = input_tensors(inputs)
        with evaluating(network), torch.no_grad():
            whole = FromTensors(network, inputs).eval()
            files = _convert(whole, tensors, folder, name)
            session = self.load(files[0])
            fault = _difference(session, whole, tensors)
            if fault:
                raise EasyPrunerError(f'pnnx converts this network wrongly: {fault}')
            two = tuple(torch.cat([t, t]) if t.dim() else t for t in tensors)
            reason = _difference(session, whole, two)
        notes = (f'pnnx fixes the size of the batch: {reason}',) if reason else ()
        return Exported(files[0], files, not reason, notes)

    def load(self, path: Path) -> Session:
        net = self._net(path)
        return self._session(net, net.input_names(), sorted(net.output_names(), key=_number))

    def layer_sessions(self, layers: Sequence[tuple[nn.Module, Any]]) -> list[Session]:
        # One network for all of them. Only the layers of the output that is asked for are run.
        whole = Beside([layer for layer, _ in layers]).eval()
        with tempfile.TemporaryDirectory(prefix='easypruner-') as folder:
            tensors = tuple(inputs for _, inputs in layers)
            net = self._net(_convert(whole, tensors, Path(folder), 'layers')[0])
        return [
            self._session(net, [f'in{number}'], [f'out{number}'], first=number)
            for number in range(len(layers))
        ]

    def _net(self, path: Path) -> Any:
        import ncnn

        net = ncnn.Net()
        net.opt.num_threads = self.threads
        for name in ('fp16_packed', 'fp16_storage', 'fp16_arithmetic', 'bf16_storage'):
            setattr(net.opt, f'use_{name}', False)
        weights = path.with_suffix('.bin')
        for file in (path, weights):
            if not file.is_file():
                raise EasyPrunerError(f'ncnn needs {str(file)!r}, which is not there')
        if net.load_param(str(path)) or net.load_model(str(weights)):
            raise EasyPrunerError(f'ncnn cannot load {str(path)!r}: it is damaged, or not of ncnn')
        return net

    def _session(
        self, net: Any, inputs: Sequence[str], outputs: Sequence[str], first: int = 0
    ) -> Session:
        """Return a session.

        Args:
            net: the network.
            inputs: the names of its inputs that are given.
            outputs: the names of the outputs that are wanted.
            first: the number of the first tensor that is given.
        """
        import ncnn

        def bind(given: Any) -> Callable[[], tuple[Tensor, ...]]:
            arrays = [
                _narrow(tensor).numpy() for tensor in _chosen(inputs, input_tensors(given), first)
            ]
            mats = [ncnn.Mat(array, batch_index=0).clone() for array in arrays]

            def run() -> tuple[Tensor, ...]:
                with net.create_extractor() as extractor:
                    for name, mat in zip(inputs, mats, strict=True):
                        extractor.input(name, mat)
                    found = [extractor.extract(name)[1] for name in outputs]
                    return tuple(torch.from_numpy(mat.numpy(batch_index=0)) for mat in found)

            return run

        return Session(bind, keep=net)


def _difference(session: Session, network: nn.Module, tensors: tuple[Tensor, ...]) -> str:
    """Return how the outputs of a session differ from those of the network; '' if they agree."""
    try:
        expected, found = tensors_of(network(*tensors)), session.bind(tensors)()
    except Exception as error:  # a forward raises errors of any class
        return first_lines(error)
    shapes = [tuple(t.shape) for t in found], [tuple(t.shape) for t in expected]
    if shapes[0] != shapes[1]:
        return f'its outputs have the shapes {shapes[0]}, expected {shapes[1]}'
    for number, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
        share = float((ours - theirs).abs().max()) / max(1.0, float(theirs.abs().max()))
        if not share <= _TOLERANCE:
            return f'output {number} has an error of {share:.2g} of its largest value'
    return ''


def _number(name: str) -> int:
    """Return the number in the name that pnnx gives to an input or output, such as ``out0``."""
    return int(''.join(filter(str.isdigit, name)))


def _chosen(names: Sequence[str], tensors: Sequence[Tensor], first: int) -> list[Tensor]:
    """Return the tensors of inputs. pnnx leaves out inputs that the network does not use.

    Raises:
        EasyPrunerError: there are not as many.
    """
    places = [_number(name) - first for name in names]
    if max(places) >= len(tensors):
        raise EasyPrunerError(
            f'the network has the inputs {", ".join(names)}, but got {len(tensors)} tensors'
        )
    return [tensors[place] for place in places]


def _narrow(tensor: Tensor) -> Tensor:
    """Return a tensor on the CPU, and whole numbers in the type of ncnn."""
    tensor = tensor.detach().cpu().contiguous()
    return tensor if tensor.is_floating_point() else tensor.int()


def _convert(
    network: nn.Module, tensors: Sequence[Tensor], folder: Path, name: str
) -> tuple[Path, Path]:
    """Convert a network by pnnx, and return the two files."""
    import pnnx

    unknown = {tensor.dtype for tensor in tensors} - set(_TYPES)
    if unknown:
        raise EasyPrunerError(
            f'ncnn takes no inputs of type {unknown.pop()}; expected float32, int64 or int32'
        )
    if not all(tensor.dim() for tensor in tensors):
        raise EasyPrunerError(
            'ncnn takes no inputs without dimensions; give a tensor of shape (1,)'
        )
    with tempfile.TemporaryDirectory(prefix='easypruner-') as work:
        file = Path(work) / 'network.pt'
        traced = trace_network(network, tensors, file)
        shapes = (f'{list(t.shape)}{_TYPES[t.dtype]}'.replace(' ', '') for t in tensors)
        command = [pnnx.EXEC_PATH, str(file), f'inputshape={",".join(shapes)}', 'fp16=0']
        done = subprocess.run(command, cwd=work, capture_output=True, text=True, check=False)
        found = [file.with_suffix(f'.ncnn.{suffix}') for suffix in ('param', 'bin')]
        if done.returncode or not all(path.is_file() for path in found):
            reason = _reason(done.stderr or done.stdout)
            raise EasyPrunerError(
                f'pnnx cannot convert the network: {reason}'
                f'{describe_locations(reason, traced_calls(traced, network))}'
            )
        foreign = sorted(set(_FOREIGN.findall(found[0].read_text(encoding='utf-8'))))
        if foreign:
            names = ', '.join(foreign)
            raise EasyPrunerError(
                f'ncnn has no layer for {names}'
                f'{describe_locations(names, traced_calls(traced, network))}'
            )
        files = folder / f'{name}.ncnn.param', folder / f'{name}.ncnn.bin'
        for old, new in zip(found, files, strict=True):
            shutil.copyfile(old, new)
    return files


def _reason(printed: str) -> str:
    """Return the reason in what pnnx has printed, which may be many pages."""
    unknown = _UNKNOWN.search(printed)
    if unknown is not None:
        return f'it has no operation for {unknown[1]}'
    ended = printed.partition(_ENDED)[2]
    failed = _FAILED.search(ended)
    if failed is not None:
        return failed[0]
    return first_lines(ended or '\n'.join(printed.splitlines()[-3:]))


easypruner_components = hookimpl(lambda: [Ncnn])
