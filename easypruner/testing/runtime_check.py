"""The check of runtimes: what they export and run has to compute the same as torch."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from easypruner.base.nested import map_tensors
from easypruner.errors import EasyPrunerError
from easypruner.graph.recording.tape import call_model
from easypruner.runtimes import Exported, Runtime, Session
from easypruner.runtimes.kinds import KINDS
from easypruner.runtimes.program import tensors_of
from easypruner.testing.networks import network

_OTHER_BATCH = 3
_ABSENT = 'a_package_that_nobody_has'


@dataclass
class _Parts:
    """Outputs of a network, as a dataclass."""

    classes: Tensor
    features: Sequence[Tensor]


class Tokens(nn.Module):
    """A network that takes whole numbers by name, and returns a dataclass."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(11, 8), nn.Linear(8, 5)

    def forward(self, tokens: Tensor, weights: Tensor, *, bend: bool = False) -> _Parts:
        """Return an output of each token, and those between the layers."""
        x = self.embed(tokens) * weights
        if bend:
            x = torch.tanh(x)
        return _Parts(self.head(x), [x])


def _cases(names: Sequence[str]) -> Mapping[str, tuple[nn.Module, Any]]:
    """Return name -> network and its inputs."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tokens = {'tokens': torch.randint(11, (2, 6)), 'weights': torch.rand(2, 6, 1), 'bend': True}
        last = {'tokens': (Tokens().eval(), tokens)}
    return {name: (network(name).make(), network(name).inputs()) for name in names} | last


def check_runtime(
    runtime: Runtime,
    *,
    networks: Sequence[str] = ('plain', 'depthwise'),
    tolerance: float = 1e-4,
) -> None:
    """Export tiny networks, load and run them, and compare with torch.

    One of the networks takes whole numbers in a dict and returns a dataclass. What a runtime cannot
    express, it has to refuse by an EasyPrunerError.

    Args:
        runtime: the runtime; its packages are installed.
        networks: the names of the tiny networks of :data:`easypruner.testing.NETWORKS` to run.
        tolerance: the largest difference of the outputs.

    Raises:
        EasyPrunerError: the runtime cannot run here.
        AssertionError: outputs differ, the network is changed by an export, files are not listed,
            or the runtime does not say what to install.
    """
    runtime.check()
    for name, (model, inputs) in _cases(networks).items():
        before = _state_of(model)
        _check_export(runtime, name, model, inputs, tolerance)
        after = _state_of(model)
        changed = [key for key, value in before.items() if after.get(key) != value]
        assert not changed and len(after) == len(before), f'{name}: an export changes {changed}'
    _check_session(runtime, *_cases(networks)[networks[0]], tolerance)
    _check_layers(runtime, tolerance)
    _check_refusals(runtime)
    for kind, grid in runtime.widths.items():
        assert grid >= 1, f'the grid of {kind!r} is {grid}, expected at least 1'
    unknown = sorted(set(runtime.widths) - set(KINDS))
    assert not unknown, f'widths has the kinds {unknown}; expected some of {list(KINDS)}'


def _check_export(
    runtime: Runtime, name: str, model: nn.Module, inputs: Any, tolerance: float
) -> None:
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        exported = runtime.export(model, inputs, folder, 'network')
        _check_files(exported, folder)
        session = runtime.load(exported.path)
        _compare(session, model, inputs, tolerance, f'{name}, loaded')
        if exported.dynamic_batch:
            other = map_tensors(inputs, lambda t: torch.cat([t] * _OTHER_BATCH)[:_OTHER_BATCH])
            _compare(session, model, other, tolerance, f'{name}, a batch of {_OTHER_BATCH}')
        else:
            assert exported.notes, f'{name}: the batch is fixed, and no note says why'


def _check_session(runtime: Runtime, model: nn.Module, inputs: Any, tolerance: float) -> None:
    before = _state_of(model)
    _compare(runtime.session(model, inputs), model, inputs, tolerance, 'in a session')
    _compare(runtime.fixed_session(model, inputs), model, inputs, tolerance, 'in a fixed session')
    assert _state_of(model) == before, 'a session changes the network'


def _state_of(model: nn.Module) -> dict[str, Any]:
    """Return what an export could change, as comparable values."""
    found: dict[str, Any] = {}
    for path, module in model.named_modules():
        own = {k: v for k, v in vars(module).items() if not k.startswith('_') or 'hooks' in k}
        found |= {f'{path}.{key}': repr(value) for key, value in own.items()}
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        found[name] = tensor.tolist(), tensor.stride(), tensor.requires_grad, id(tensor)
    return found


def _check_files(exported: Exported, folder: Path) -> None:
    written = {path for path in folder.rglob('*') if path.is_file()}
    listed = set(exported.files)
    assert written == listed, (
        f'the export wrote {sorted(map(str, written))} and lists {sorted(map(str, listed))}'
    )
    assert exported.path in listed or any(exported.path in file.parents for file in listed), (
        f'{exported.path} is neither one of the files nor their folder'
    )
    assert all(path.name.startswith('network') for path in folder.iterdir()), (
        f'expected files that begin with the name of the export, got {sorted(folder.iterdir())}'
    )
    assert exported.size > 0, 'the files are empty'


def _compare(session: Session, model: nn.Module, inputs: Any, tolerance: float, what: str) -> None:
    with torch.no_grad():
        expected = tensors_of(call_model(model, inputs))
    run = session.bind(inputs)
    for pass_ in (run, run):
        found = tuple(tensor.detach().cpu() for tensor in pass_())
        shapes = [tuple(t.shape) for t in found], [tuple(t.shape) for t in expected]
        assert shapes[0] == shapes[1], f'{what}: outputs of shapes {shapes[0]}, not {shapes[1]}'
        for number, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
            error = float((ours - theirs).abs().max())
            assert error <= tolerance, f'{what}: output {number} differs by {error:.2g}'


def _check_layers(runtime: Runtime, tolerance: float) -> None:
    layers = [
        (nn.Conv2d(width, width, 3, padding=1).eval(), torch.randn(1, width, 6, 6))
        for width in (4, 6)
    ]
    sessions = runtime.layer_sessions(layers)
    for session, (layer, inputs) in zip(sessions, layers, strict=True):
        _compare(session, layer, inputs, tolerance, f'a layer of {layer.in_channels} channels')


def _check_refusals(runtime: Runtime) -> None:
    """A damaged file is refused, and so is everything if a package is absent."""
    with tempfile.TemporaryDirectory() as work:
        damaged = Path(work) / 'damaged'
        damaged.write_bytes(b'damaged')
        for path in (damaged, Path(work) / 'absent'):
            _expect_refusal(lambda path=path: runtime.load(path), f'a file that is {path.name}')
    if runtime.packages:
        without = copy.copy(runtime)
        without.__class__ = type(runtime.name, (type(runtime),), {'packages': {_ABSENT: _ABSENT}})
        message = _expect_refusal(without.check, 'an absent package')
        for word in (runtime.name, 'pip install', runtime.extra or _ABSENT):
            assert word in message, f'the message about an absent package lacks {word!r}: {message}'


def _expect_refusal(action: Any, what: str) -> str:
    """Return the message by which something is refused."""
    try:
        action()
    except EasyPrunerError as error:
        return str(error)
    except Exception as error:
        raise AssertionError(
            f'{what} raises {type(error).__name__}, expected an EasyPrunerError: {error}'
        ) from error
    raise AssertionError(f'{what} is accepted, expected an EasyPrunerError')
