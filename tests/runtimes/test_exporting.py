"""Exports: everything or nothing, compared with torch, and weights that load on their own."""

from __future__ import annotations

import copy
import importlib.util
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import easypruner
from easypruner.errors import ConfigError, EasyPrunerError
from easypruner.plugins import load_plugins
from easypruner.runtimes import Session
from easypruner.runtimes.agreement import check_agreement, with_batch
from easypruner.runtimes.exporting import SUMMARY
from easypruner.testing import randomized_network

IMAGES = torch.rand(1, 3, 8, 8)


def make_network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, groups=8),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 4),
    )


@pytest.fixture(scope='module')
def networks() -> tuple[nn.Module, nn.Module]:
    """Return a network and its pruned copy."""
    network = randomized_network(make_network)
    return network, easypruner.slim(network, IMAGES, macs=0.6).model


def doubling(cls: type[Any]) -> Any:
    """Return a runtime that computes something else."""

    class Doubling(cls):  # type: ignore[misc]
        def load(self, path: Path) -> Session:
            session = super().load(path)
            return Session(lambda inputs: lambda: tuple(2 * t for t in session.bind(inputs)()))

    return Doubling()


def eager() -> type[Any]:
    from easypruner_plugins.torch_runtimes import TorchEager

    return TorchEager


class TestExport:
    def test_a_pruned_network_beside_the_unpruned_one(
        self, networks: tuple[nn.Module, nn.Module], tmp_path: Path
    ) -> None:
        network, pruned = networks
        modes = [module.training for module in pruned.modules()]
        found = easypruner.export(pruned, IMAGES, tmp_path / 'e', 'TorchEager', unpruned=network)
        assert [module.training for module in pruned.modules()] == modes
        images = torch.rand(3, 3, 8, 8)
        for name, each in (('network', pruned), ('unpruned', network)):
            program = torch.export.load(found.file('TorchEager', name))
            torch.testing.assert_close(program.module()(images), each.eval()(images))
        content = json.loads((tmp_path / 'e' / SUMMARY).read_text())
        first, second = content['files']
        assert first['dynamic_batch'] and first['error'] < 1e-5
        assert first['bytes'] == found.file('TorchEager').stat().st_size < second['bytes']
        assert content['inputs'] == ['[1, 3, 8, 8] torch.float32']
        assert 'differs from torch by at most' in str(found)

    def test_nothing_is_left_if_the_outputs_differ(self, tmp_path: Path) -> None:
        load_plugins()
        with pytest.raises(EasyPrunerError, match='Doubling differ from those of torch by 1'):
            easypruner.export(make_network(), IMAGES, tmp_path / 'e', doubling(eager()))
        assert not list(tmp_path.iterdir())

    def test_an_earlier_export_stays_unless_it_may_be_replaced(self, tmp_path: Path) -> None:
        folder = tmp_path / 'e'
        easypruner.export(make_network(), IMAGES, folder, 'TorchEager')
        before = (folder / SUMMARY).read_bytes()
        with pytest.raises(EasyPrunerError, match='earlier export'):
            easypruner.export(make_network(), IMAGES, folder, 'TorchEager')
        with pytest.raises(EasyPrunerError, match='Doubling'):
            easypruner.export(make_network(), IMAGES, folder, doubling(eager()), overwrite=True)
        assert (folder / SUMMARY).read_bytes() == before
        easypruner.export(nn.Flatten(), IMAGES, folder, 'TorchEager', overwrite=True)
        assert json.loads((folder / SUMMARY).read_text())['model'] == 'Flatten'

    @pytest.mark.parametrize(
        'why', ['a shell is in it', 'it is a mount', 'its parent is read-only']
    )
    def test_a_folder_that_cannot_be_moved_is_filled(
        self, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = tmp_path / 'e'
        folder.mkdir()
        before, rename, mkdir = folder.stat().st_ino, Path.rename, Path.mkdir

        def refuse_rename(path: Path, target: Path) -> Path:
            if path == folder:
                raise OSError('busy')
            return rename(path, target)

        def refuse_mkdir(path: Path, *args: Any, **options: Any) -> None:
            if path.parent == tmp_path:
                raise PermissionError('read-only')
            mkdir(path, *args, **options)

        if why == 'a shell is in it':
            monkeypatch.chdir(folder)
        else:
            monkeypatch.setattr(Path, 'rename', refuse_rename)
        if why == 'its parent is read-only':
            monkeypatch.setattr(Path, 'mkdir', refuse_mkdir)
        for width in (2, 3):
            network = nn.Linear(4, width)
            easypruner.export(network, torch.rand(1, 4), folder, 'TorchEager', overwrite=True)
            assert sorted(path.name for path in folder.iterdir()) == [
                'TorchEager',
                'export.json',
                'weights',
            ]
        program = torch.export.load(folder / 'TorchEager/network.pt2').module()
        assert program(torch.rand(1, 4)).shape == (1, 3)
        assert folder.stat().st_ino == before and list(tmp_path.iterdir()) == [folder]

    def test_an_error_of_the_disk_names_the_folder_that_was_given(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        mkdir = Path.mkdir

        def refuse(path: Path, *args: Any, **options: Any) -> None:
            if path.parent == tmp_path:
                raise PermissionError(13, 'Permission denied', str(path))
            mkdir(path, *args, **options)

        monkeypatch.setattr(Path, 'mkdir', refuse)
        with pytest.raises(PermissionError) as caught:
            easypruner.export(nn.Flatten(), IMAGES, tmp_path / 'e', 'TorchEager')
        assert caught.value.filename == str(tmp_path / 'e')

    def test_a_folder_of_other_origin_is_not_touched(self, tmp_path: Path) -> None:
        (tmp_path / 'notes.txt').write_text('mine')
        with pytest.raises(EasyPrunerError, match='is not empty'):
            easypruner.export(make_network(), IMAGES, tmp_path, 'TorchEager', overwrite=True)
        assert [file.name for file in tmp_path.iterdir()] == ['notes.txt']

    @pytest.mark.parametrize(
        ('model', 'runtime', 'message'),
        [
            (nn.Flatten(), 'TorchEagre', "did you mean 'TorchEager'"),
            (nn.Flatten(), [], 'got no runtime'),
            (nn.Flatten(), None, 'runtime is None; expected the name of a runtime'),
            (nn.Flatten(), Session, 'expected the name of a runtime'),
            (nn.Flatten(), ['TorchEager', 'TorchEager'], 'TorchEager is given 2 times'),
            ('resnet18', 'TorchEager', 'model of export is a str'),
        ],
    )
    def test_mistakes(self, model: Any, runtime: Any, message: str, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=message):
            easypruner.export(model, IMAGES, tmp_path / 'e', runtime)
        with pytest.raises(ConfigError, match='folder of export is None'):
            easypruner.export(nn.Flatten(), IMAGES, None, 'TorchEager')  # type: ignore[arg-type]

    def test_onnx_with_inputs_and_outputs_by_name(self, tmp_path: Path) -> None:
        onnxruntime = pytest.importorskip('onnxruntime')
        pytest.importorskip('onnxscript')
        inputs = {'image': torch.rand(1, 4), 'mode': 'tensor'}
        found = easypruner.export(Named(), inputs, tmp_path / 'e')
        session = onnxruntime.InferenceSession(str(found.file('OnnxRuntime')))
        assert [value.shape for value in session.get_inputs()] == [['batch', 4]]
        assert [value.shape for value in session.get_outputs()] == [['batch', 4]]
        images = torch.rand(5, 4)
        (output,) = session.run(['logits'], {'image': images.numpy()})
        torch.testing.assert_close(torch.as_tensor(output), Named()(images, 'tensor')['logits'])

    def test_weights_that_are_parametrized_become_plain(self, tmp_path: Path) -> None:
        pytest.importorskip('onnxscript')
        network = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3))
        # ONNX has no operation for it.
        nn.utils.parametrizations.orthogonal(network[0])
        nn.utils.parametrizations.spectral_norm(network[2])
        before = copy.deepcopy(network.state_dict())
        found = easypruner.export(
            network, torch.rand(1, 6), tmp_path / 'e', ['OnnxRuntime', 'TorchEager']
        )
        assert all(file.error < 1e-5 and file.dynamic_batch for file in found.files)
        after = network.state_dict()
        assert after.keys() == before.keys()
        assert all(torch.equal(value, after[name]) for name, value in before.items())
        network(torch.rand(1, 6)).sum().backward()
        program = torch.export.load(found.file('TorchEager'))
        assert sorted(program.state_dict) == [
            f'network.{layer}.{name}' for layer in (0, 2) for name in ('bias', 'weight')
        ]

    @pytest.mark.parametrize(
        ('network', 'message'),
        [
            (nn.Linear(4, 2).double(), 'weights are float64, .*give network.float()'),
            (nn.LazyLinear(2), 'no shape yet'),
            (nn.Linear(4, 2, device='meta'), 'on the meta device'),
        ],
    )
    def test_a_network_that_no_runtime_takes(
        self, network: nn.Module, message: str, tmp_path: Path
    ) -> None:
        load_plugins()

        class FloatOnly(eager()):  # type: ignore[misc]
            def load(self, path: Path) -> Session:
                raise EasyPrunerError('only float32')

        given = torch.rand(1, 4, dtype=next(network.parameters()).dtype)
        with pytest.raises(EasyPrunerError, match=message):
            easypruner.export(network, given, tmp_path / 'e', FloatOnly())
        assert not list(tmp_path.iterdir())

    def test_a_network_that_is_compiled_in_place_is_not_compiled_by_checks(
        self, tmp_path: Path
    ) -> None:
        def refuse(*args: Any) -> Any:
            raise AssertionError('compiled')

        network = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
        network[1].compile(backend=refuse)
        found = easypruner.export(network, torch.rand(1, 4), tmp_path / 'e', 'TorchEager')
        assert found.files[0].dynamic_batch
        assert network[1]._compiled_call_impl is not None

    @pytest.mark.parametrize(
        ('network', 'message'),
        [
            (nn.Dropout(), None),
            (nn.LogSoftmax(5), 'forward pass of LogSoftmax fails on the given example inputs'),
        ],
    )
    def test_what_cannot_be_checked_is_not_exported(
        self, network: nn.Module, message: str | None, tmp_path: Path
    ) -> None:
        load_plugins()

        class Never(eager()):  # type: ignore[misc]
            def export(self, *args: Any) -> Any:
                raise EasyPrunerError('exported')

        with pytest.raises(EasyPrunerError, match=message or 'exported'):
            easypruner.export(network, torch.rand(1, 4), tmp_path / 'e', Never())

    @pytest.mark.parametrize('in_place', [True, False])
    def test_what_a_network_counts_stays(self, in_place: bool, tmp_path: Path) -> None:
        class Counting(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.register_buffer('passes', torch.zeros(1))

            def forward(self, x: Tensor) -> Tensor:
                self.passes = self.passes.add_(1) if in_place else self.passes + 1
                self.size = x.shape[1]
                return x * 2

        network = Counting()
        buffer = network.passes
        easypruner.export(network, torch.rand(1, 4), tmp_path / 'e', 'TorchEager')
        assert network.passes is buffer and network.passes.item() == 0
        assert not hasattr(network, 'size')
        loaded = load(Counting(), tmp_path / 'e' / 'weights')
        assert loaded(torch.ones(1, 4)).sum() == 8

    def test_torchscript_is_refused(self, tmp_path: Path) -> None:
        scripted = torch.jit.trace(nn.Linear(4, 2), torch.rand(1, 4))
        with pytest.raises(EasyPrunerError, match='TorchScript'):
            easypruner.export(scripted, torch.rand(1, 4), tmp_path / 'e', 'TorchEager')


class Named(nn.Module):
    def forward(self, image: Tensor, mode: str) -> dict[str, Tensor]:
        return {'logits': image.softmax(-1)} if mode == 'tensor' else {}


def load(network: nn.Module, folder: Path) -> nn.Module:
    """Turn a network into an exported one by the program in the folder of its weights."""
    spec = importlib.util.spec_from_file_location('load_widths', folder / 'load_widths.py')
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    loaded: nn.Module = module.load_widths(network, folder)
    return loaded


class TestWeights:
    def test_they_load_into_the_original_without_easypruner(
        self, networks: tuple[nn.Module, nn.Module], tmp_path: Path
    ) -> None:
        network, pruned = networks
        easypruner.export(pruned, IMAGES, tmp_path / 'e', 'TorchEager', unpruned=network)
        for given in (network, None):
            folder = tmp_path / ('e' if given else 'f')
            easypruner.export(pruned, IMAGES, folder, 'TorchEager', unpruned=given, overwrite=True)
            loader = folder / 'weights' / 'load_widths.py'
            assert 'easypruner' not in loader.read_text()
            loaded = load(make_network().eval(), loader.parent)
            assert torch.equal(loaded(IMAGES), pruned.eval()(IMAGES))
            assert repr(loaded) == repr(pruned)

    def test_tensors_that_are_plain_attributes_load_as_well(self, tmp_path: Path) -> None:
        class Gain(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 2)
                self.gain = torch.rand(8)
                self.kept: Tensor | None = None

            def forward(self, x: Tensor) -> Tensor:
                self.kept = self.gain * 2
                return self.last(self.first(x).relu() * self.kept)

        network, x = Gain(), torch.rand(1, 4)
        pruned = easypruner.slim(copy.deepcopy(network), x, macs=0.6).model
        easypruner.export(pruned, x, tmp_path / 'e', 'TorchEager')
        pruned(x)
        unpruned = copy.deepcopy(network)
        easypruner.export(pruned, x, tmp_path / 'f', 'TorchEager', unpruned=unpruned)
        for folder in (tmp_path / 'e', tmp_path / 'f'):
            loaded = load(copy.deepcopy(network), folder / 'weights')
            assert len(loaded.gain) == len(pruned.gain) < 8
            # What a pass has left is not written.
            assert loaded.kept is None
            assert torch.equal(loaded(x), pruned(x))

    def test_that_a_loading_was_not_tried_is_said(self, tmp_path: Path) -> None:
        network, x = nn.Linear(4, 2), torch.rand(1, 4)
        found = easypruner.export(network, x, tmp_path / 'e', 'TorchEager')
        assert 'not tried: the unpruned network was not given' in found.weights[1]
        given = dict(unpruned=copy.deepcopy(network), overwrite=True)
        found = easypruner.export(network, x, tmp_path / 'e', 'TorchEager', **given)
        assert 'not tried' not in found.weights[1]

    def test_a_library_that_draws_and_prints(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        class Saved(nn.Linear):
            def save_pretrained(self, folder: Path) -> None:
                torch.save(self.state_dict(), folder / 'w.pth')

            @classmethod
            def from_pretrained(cls, folder: Path) -> Saved:
                print('loading')
                network = cls(4, 2)
                network.load_state_dict(torch.load(folder / 'w.pth'))
                return network

        network, state = Saved(4, 2), torch.get_rng_state()
        found = easypruner.export(network, torch.rand(1, 4), tmp_path / 'e', 'TorchEager')
        state_of_inputs = torch.get_rng_state()
        torch.set_rng_state(state)
        torch.rand(1, 4)
        assert torch.equal(torch.get_rng_state(), state_of_inputs)
        assert 'from_pretrained' in found.weights[1]
        assert capsys.readouterr().out == ''

    def test_a_network_with_more_than_other_numbers_needs_more(self, tmp_path: Path) -> None:
        class Scaled(nn.Linear):
            factor = 1.0

            def forward(self, x: Tensor) -> Tensor:
                return super().forward(x) * self.factor

        network = Scaled(4, 2)
        pruned = copy.deepcopy(network)
        pruned.factor = 0.5
        found = easypruner.export(
            pruned, torch.rand(1, 4), tmp_path / 'e', 'TorchEager', unpruned=network
        )
        assert 'only easypruner.load_pruned rebuilds this network' in found.weights[1]
        assert not (tmp_path / 'e/weights/load_widths.py').exists()

    @pytest.mark.in_ci
    def test_a_folder_of_hugging_face(self, tmp_path: Path) -> None:
        transformers = pytest.importorskip('transformers')
        config = transformers.BertConfig(
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=24,
            vocab_size=10,
        )
        network = transformers.BertModel(config)
        inputs = {'input_ids': torch.randint(0, 10, (2, 5))}
        ignore = ['*.attention', 'embeddings', 'pooler']
        # The same share of each layer, because the config has one width for all of them.
        source = dict(type='L1Norm', normalization='rank', budget=dict(type='Ratio', keep=0.5))
        half = easypruner.slim(network, inputs, source=source, ignore=ignore).model
        found = easypruner.export(half, inputs, tmp_path / 'e', 'TorchEager', unpruned=network)
        assert 'from_pretrained' in found.weights[1]
        loaded = transformers.BertModel.from_pretrained(tmp_path / 'e' / 'weights')
        assert loaded.config.intermediate_size == 12
        got, expected = loaded.eval()(**inputs)[0], half.eval()(**inputs)[0]
        torch.testing.assert_close(got, expected)
        assert network.config.intermediate_size == 24


class TestAgreement:
    @staticmethod
    def session(network: nn.Module) -> Session:
        return Session(lambda inputs: lambda: (network(inputs),))

    def test_a_batch_that_fails_is_a_reason(self) -> None:
        network = nn.Linear(3, 2)

        def bind(inputs: Tensor) -> Any:
            if len(inputs) != 1:
                raise RuntimeError('only one sample')
            return lambda: (network(inputs),)

        found = check_agreement(
            Session(bind), network, torch.rand(1, 3), 'Some', dynamic_batch=True
        )
        assert not found.other_batch and 'only one sample' in found.reason and found.error == 0

    def test_other_inputs_than_the_example_are_tried(self) -> None:
        network = nn.Linear(3, 2)
        example = torch.rand(1, 3)
        constant = network(example).detach()
        session = Session(lambda inputs: lambda: (constant,))
        with pytest.raises(EasyPrunerError, match='differ'):
            check_agreement(session, network, example, 'Some', dynamic_batch=False)

    def test_what_cannot_be_checked_is_refused(self) -> None:
        class Random(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return x + torch.rand_like(x)

        class Invalid(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return x * math.nan

        for network, reason in ((Random(), 'random numbers'), (Invalid(), 'not numbers')):
            with pytest.raises(EasyPrunerError, match=reason):
                check_agreement(
                    self.session(network), network, torch.rand(1, 3), 'S', dynamic_batch=False
                )

    def test_infinite_outputs_have_to_be_the_same(self) -> None:
        # Of most random inputs, the root is not a number.
        class Masked(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return x.sqrt().masked_fill(torch.tensor([True, False, False]), -math.inf)

        network, inputs = Masked(), torch.rand(1, 3)
        check_agreement(self.session(network), network, inputs, 'S', dynamic_batch=True)
        other = Session(lambda inputs: lambda: (network(inputs).clamp(min=-9),))
        with pytest.raises(EasyPrunerError, match='by inf'):
            check_agreement(other, network, inputs, 'S', dynamic_batch=False)

    def test_inputs_that_a_network_refuses_do_not_count(self) -> None:
        class Picky(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                if not sorted(x.flatten().tolist()) == x.flatten().tolist():
                    raise ValueError('not sorted')
                return x * 2

        network, inputs = Picky(), torch.arange(4.0)[None]
        found = check_agreement(self.session(network), network, inputs, 'S', dynamic_batch=False)
        assert found.error == 0
        # Torch itself cannot run three samples.
        found = check_agreement(self.session(network), network, inputs, 'S', dynamic_batch=True)
        assert 'torch does not run the network: not sorted' in found.reason

    @pytest.mark.parametrize('wrong', [1, 3])
    def test_each_size_of_the_batch_counts(self, wrong: int) -> None:
        # It returns numbers for none of the random inputs.
        class Root(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return (x - torch.tensor([0.0, 1.0, 2.0, 3.0])).add(0.5).sqrt()

        def bind(inputs: Tensor) -> Any:
            return lambda: (Root()(inputs) + (len(inputs) == wrong),)

        inputs = torch.tensor([[0.0, 1.0, 2.0, 3.0]]).repeat(2, 1)
        found = check_agreement(Session(bind), Root(), inputs, 'S', dynamic_batch=True)
        assert not found.other_batch and f'a batch of {wrong}: the outputs' in found.reason

    def test_complex_outputs_are_compared_as_a_whole(self) -> None:
        class Turned(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return torch.complex(x, x)

        network = Turned()
        session = Session(lambda inputs: lambda: (network(inputs).conj(),))
        with pytest.raises(EasyPrunerError, match='differ'):
            check_agreement(session, network, torch.rand(1, 3), 'S', dynamic_batch=False)

    def test_batches_repeat_the_samples(self) -> None:
        inputs = {'x': torch.tensor([[1.0], [2.0]]), 'flag': torch.tensor(3), 'mode': 'tensor'}
        found = with_batch(copy.copy(inputs), 3)
        assert found['x'].flatten().tolist() == [1, 2, 1] and found['flag'] == 3
        assert with_batch(inputs, 1)['x'].tolist() == [[1]]
