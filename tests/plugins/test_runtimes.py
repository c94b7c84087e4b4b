"""Runtimes compute what torch computes, whatever the network takes and returns."""

from __future__ import annotations

import importlib.util
import runpy
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from easypruner.errors import EasyPrunerError
from easypruner.plugins import load_plugins
from easypruner.plugins.registry import RUNTIMES, build
from easypruner.runtimes import Runtime, Session
from easypruner.runtimes.kinds import KINDS
from easypruner.testing import check_runtime, network

load_plugins()
ALL = sorted(name for name, cls in RUNTIMES.classes.items() if cls.__module__.startswith('easyp'))
OPTIONAL = [name for name in ALL if RUNTIMES.classes[name].packages]


def runtime(name: str, **arguments: Any) -> Runtime:
    """Return a runtime; skip the test if it cannot run here."""
    found: Runtime = build(RUNTIMES, dict(type=name, **arguments))
    if found.fault():
        pytest.skip(found.fault())
    return found


@pytest.mark.parametrize(
    'name',
    [pytest.param(n, marks=[pytest.mark.slow] if n == 'TorchCompile' else []) for n in ALL],
)
def test_it_computes_what_torch_computes(name: str) -> None:
    check_runtime(runtime(name), networks=['depthwise'])


@pytest.mark.slow
@pytest.mark.parametrize('name', ALL)
def test_other_networks(name: str) -> None:
    networks = ['plain', 'residual', 'dense', 'grouped', 'squeeze_excite', 'split', 'flattened']
    check_runtime(runtime(name), networks=[*networks, 'recurrent'])


def extras(monkeypatch: pytest.MonkeyPatch) -> Mapping[str, list[str]]:
    """Return the extras in setup.py."""
    given: dict[str, Any] = {}
    monkeypatch.setattr('setuptools.setup', given.update)
    monkeypatch.chdir(Path(__file__).parents[2])
    runpy.run_path('setup.py')
    found: Mapping[str, list[str]] = given['extras_require']
    return found


@pytest.mark.parametrize('name', OPTIONAL)
def test_what_to_install_is_an_extra_that_has_it(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: Runtime = build(RUNTIMES, dict(type=name))
    required = extras(monkeypatch)[found.extra]
    assert {entry.partition('>')[0] for entry in required} == set(found.packages.values())
    # As if they were not installed.
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    for action in (
        found.check,
        lambda: found.session(nn.Linear(2, 2), torch.ones(1, 2)),
        lambda: found.layer_sessions([(nn.Linear(2, 2), torch.ones(1, 2))]),
        lambda: found.load(Path('network')),
    ):
        with pytest.raises(EasyPrunerError, match=rf"{name}.*pip install 'easypruner\[") as error:
            action()
        assert all(package in str(error.value) for package in found.packages.values())


@pytest.mark.parametrize('name', OPTIONAL)
def test_a_broken_package_is_no_traceback(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found: Runtime = build(RUNTIMES, dict(type=name))
    monkeypatch.setattr(type(found), 'check', lambda self: None)
    for module in [m for m in sys.modules if m.partition('.')[0] in found.packages]:
        monkeypatch.delitem(sys.modules, module)
    for module in found.packages:
        monkeypatch.setitem(sys.modules, module, None)
    model = network('plain').make()
    # An old torch is refused before.
    expected = f"runtime '{name}' cannot import .*pip install|pip install --upgrade torch"
    with pytest.raises(EasyPrunerError, match=expected):
        found.session(model, network('plain').inputs())


@pytest.mark.parametrize('name', ALL)
def test_grids_are_known_without_the_packages(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RUNTIMES.classes[name], 'fault', lambda self: 'not here')
    found: Runtime = build(RUNTIMES, dict(type=name))
    assert {kind: found.grid(kind) for kind in KINDS} == {**dict.fromkeys(KINDS, 1), **found.widths}
    assert set(found.widths) <= set(KINDS)


class Counts(nn.Module):
    """A linear layer that notes the number of threads of each pass."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.threads: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.threads.append(torch.get_num_threads())
        return self.layer(x)


@pytest.mark.parametrize('threads', [1, 2])
def test_a_pass_in_torch_has_the_threads_of_the_runtime(threads: int) -> None:
    model, before = Counts(), torch.get_num_threads()
    session = runtime('TorchEager', threads=threads).session(model, torch.ones(1, 3))
    running: list[Tensor] = list(session.bind(torch.ones(1, 3))())
    assert not running[0].requires_grad
    assert torch.get_num_threads() == before and model.threads == []
    counting = Counts()
    counting.threads = Shared()
    runtime('TorchEager', threads=threads).session(counting, torch.ones(1, 3)).bind(
        torch.ones(1, 3)
    )
    assert counting.threads == [threads]


class Shared(list[int]):
    """A list that copies of a network share."""

    def __deepcopy__(self, memo: object) -> Shared:
        return self


def test_a_session_shares_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    model = network('depthwise').make()
    kept: list[nn.Module] = []
    for name in ('TorchEager', 'TorchChannelsLast'):
        cls = RUNTIMES.classes[name]
        monkeypatch.setattr(cls, '_prepared', lambda self, found: kept.append(found) or found)
        runtime(name).session(model, network('depthwise').inputs())
    own = {tensor.data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    same, last = ({tensor.data_ptr() for tensor in k.parameters()} for k in kept)
    assert same <= own
    assert all(t.is_contiguous(memory_format=torch.channels_last) for t in kept[1].parameters()
               if t.dim() == 4)  # fmt: skip
    assert own & last  # those that have no other format
    assert all(tensor.is_contiguous() for tensor in model.parameters())


@pytest.mark.parametrize('name', ['OnnxRuntime', 'OpenVINO', 'TorchEager'])
def test_inputs_of_a_wrong_shape_are_refused(name: str) -> None:
    found = network('plain')
    session = runtime(name).session(found.make(), found.inputs())
    with pytest.raises(EasyPrunerError, match=r'does not run on inputs of shape \(2, 4, 8, 8\): '):
        session.bind(torch.randn(2, 4, 8, 8))


class Halves(nn.Module):
    """A network with two inputs of the same shape."""

    def forward(self, first: Tensor, second: Tensor) -> dict[str, Tensor]:
        return {'half': first - second / 2}


@pytest.mark.parametrize('name', ['OnnxRuntime', 'OpenVINO'])
def test_inputs_and_outputs_have_the_names_of_the_network(name: str, tmp_path: Path) -> None:
    found, inputs = runtime(name), {'first': torch.ones(1, 2), 'second': torch.zeros(1, 2)}
    session = found.load(found.export(Halves(), inputs, tmp_path, 'network').path)
    (half,) = session.bind(dict(reversed(inputs.items())) | {'unused': torch.ones(1)})()
    assert half.tolist() == [[1.0, 1.0]]
    (half,) = session.bind(tuple(inputs.values()))()
    assert half.tolist() == [[1.0, 1.0]]
    text = b''.join(file.read_bytes() for file in tmp_path.iterdir())
    assert b'first' in text and b'half' in text
    with pytest.raises(EasyPrunerError, match='has the inputs first, second, but got 1'):
        session.bind(torch.ones(1, 2))


class Repeats(nn.Module):
    """A network that returns a tensor twice, and an input."""

    def forward(self, x: Tensor, y: Tensor) -> list[Any]:
        z = torch.relu(x)
        return [z, {'x': x}, z, None, y.sum(1)]


@pytest.mark.in_ci
@pytest.mark.parametrize('name', ['OnnxRuntime', 'OpenVINO', 'TorchEager'])
def test_outputs_may_be_the_same_tensor(name: str, tmp_path: Path) -> None:
    found, inputs = runtime(name), (torch.randn(2, 3), torch.randn(2, 3))
    session = found.load(found.export(Repeats(), inputs, tmp_path, 'network').path)
    x, y = torch.randn(3, 3), torch.randn(3, 3)
    outputs = session.bind((x, y))()
    for ours, theirs in zip(outputs, (x.relu(), x, x.relu(), y.sum(1)), strict=True):
        torch.testing.assert_close(ours, theirs)


@torch.library.custom_op('tests::twice', mutates_args=(), schema='(Tensor x) -> Tensor')
def twice(x: Tensor) -> Tensor:
    return x * 2


class Twice(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return twice(x)


class Bessel(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.special.bessel_j0(x)


class Eigenvalues(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.eigvalsh(x @ x.mT)


@pytest.mark.parametrize(
    ('name', 'reason'),
    [
        ('OnnxRuntime', 'ONNX has no operation for aten::_linalg_eigh'),
        ('OpenVINO', 'it has no operation for aten._linalg_eigh'),
    ],
)
def test_operations_that_a_format_lacks_are_named(name: str, reason: str, tmp_path: Path) -> None:
    network = nn.Sequential(nn.ReLU(), nn.Sequential(Eigenvalues())).eval()
    place = r'aten::_linalg_eigh is called in 1\.0 \(Eigenvalues\)$'
    with pytest.raises(EasyPrunerError, match=f'{reason}.*{place}'):
        runtime(name).export(network, torch.rand(1, 3, 3), tmp_path, 'network')


def test_operations_on_which_openvino_fails_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(program: Any) -> Any:
        raise RuntimeError('Check failed:\nFailed operations:\n-- aten.unfold with a message:\nno')

    found = runtime('OpenVINO')
    monkeypatch.setattr('openvino.convert_model', fail)
    with pytest.raises(EasyPrunerError, match=r'network: it fails on aten\.unfold$'):
        found.export(nn.ReLU().eval(), torch.rand(1, 3), tmp_path, 'network')


class Sign(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


class Large(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.relu() if x.shape[1] > 3 else x


class TestNcnn:
    def test_a_forward_that_decides_by_values_is_refused(self, tmp_path: Path) -> None:
        found, x = runtime('Ncnn'), torch.rand(1, 5)
        with pytest.raises(EasyPrunerError, match='the forward decides by the values of a tensor'):
            found.export(Sign().eval(), x, tmp_path, 'sign')
        session = found.load(found.export(Large().eval(), x, tmp_path, 'large').path)
        torch.testing.assert_close(session.bind(x - 0.5)()[0], (x - 0.5).relu())

    def test_a_class_of_any_name_in_a_file_of_any_name(self, tmp_path: Path) -> None:
        file = tmp_path / 'my net é.py'
        file.write_text('from torch import nn\nclass Früh(nn.Linear):\n    pass\n', 'utf-8')
        spec = importlib.util.spec_from_file_location(str(file), file)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        network, x = nn.Sequential(module.Früh(4, 3)).eval(), torch.rand(1, 4)
        found = runtime('Ncnn')
        session = found.load(found.export(network, x, tmp_path, 'network').path)
        torch.testing.assert_close(session.bind(x)()[0], network(x))
        assert (module.Früh.__name__, module.Früh.__module__) == ('Früh', str(file))

    @pytest.mark.parametrize(
        ('layer', 'message'),
        [
            (Bessel(), 'ncnn has no layer for .*special_bessel_j0 is called in 1 .Bessel'),
            (Twice(), 'no operation for tests::twice; tests::twice is called in 1 .Twice'),
        ],
    )
    def test_modules_are_named(self, layer: nn.Module, message: str, tmp_path: Path) -> None:
        network = nn.Sequential(nn.ReLU(), layer).eval()
        with pytest.raises(EasyPrunerError, match=message):
            runtime('Ncnn').export(network, torch.rand(1, 3, 3), tmp_path, 'network')

    def test_operations_that_it_lacks_are_named(self, tmp_path: Path) -> None:
        found = network('transformer')
        with pytest.raises(EasyPrunerError, match=r'ncnn has no layer for .*torch\.unbind'):
            runtime('Ncnn').export(found.make(), found.inputs(), tmp_path, 'network')

    @pytest.mark.parametrize(
        ('given', 'message'),
        [
            (torch.tensor(2.0), 'without dimensions'),
            (torch.ones(1, 3, dtype=torch.bool), 'type torch.bool; expected float32, int64 or'),
        ],
    )
    def test_inputs_that_it_does_not_take(
        self, given: Tensor, message: str, tmp_path: Path
    ) -> None:
        class Scaled(nn.Module):
            def forward(self, x: Tensor, factor: Tensor) -> Tensor:
                return x * factor

        with pytest.raises(EasyPrunerError, match=message):
            runtime('Ncnn').export(Scaled(), (torch.rand(1, 3), given), tmp_path, 'network')

    def test_a_wrong_conversion_is_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        found, ncnn = network('plain'), runtime('Ncnn')
        load = type(ncnn).load

        def wrong(self: Runtime, path: Path) -> Session:
            session = load(self, path)
            return Session(lambda x: lambda: tuple(t + 1 for t in session.bind(x)()))

        monkeypatch.setattr(type(ncnn), 'load', wrong)
        with pytest.raises(EasyPrunerError, match='wrongly: output 0 has an error of'):
            ncnn.export(found.make(), found.inputs(), tmp_path, 'network')

    def test_a_batch_that_the_forward_fixes_is_noted(self, tmp_path: Path) -> None:
        class Fixed(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return torch.relu(x) * x.shape[0]

        exported = runtime('Ncnn').export(Fixed(), torch.randn(2, 3, 4, 4), tmp_path, 'network')
        assert not exported.dynamic_batch
        assert exported.notes[0].startswith('pnnx fixes the size of the batch')


def test_a_compiler_is_needed_to_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('CXX', 'a-compiler')
    monkeypatch.setattr('shutil.which', lambda name: None)
    found: Runtime = build(RUNTIMES, dict(type='TorchCompile'))
    with pytest.raises(EasyPrunerError, match=r'needs a C\+\+ compiler, and none of a-compiler'):
        found.session(nn.Linear(2, 2), torch.ones(1, 2))


def test_tensorrt_needs_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RUNTIMES.classes['TensorRT'], 'missing', classmethod(lambda cls: ()))
    monkeypatch.setattr('torch.cuda.is_available', lambda: False)
    found: Runtime = build(RUNTIMES, dict(type='TensorRT'))
    with pytest.raises(EasyPrunerError, match='needs a GPU of NVIDIA'):
        found.load(Path('network.engine'))
