"""Programs: any inputs and outputs become tensors, and batch norms are folded."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from easypruner.errors import EasyPrunerError
from easypruner.runtimes.folding import fold_batch_norms
from easypruner.runtimes.program import export_program, load_program


@dataclass
class Found:
    logits: Tensor
    features: list[Tensor]
    loss: Tensor | None = None


class Kinds(nn.Module):
    """Takes a dict of tensors and a word, and returns a dataclass, as many libraries do."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 3), nn.Linear(4, 3)

    def forward(self, image: Tensor, extra: dict[str, Tensor], mode: str = 'loss') -> Found:
        if mode != 'tensor':
            raise RuntimeError('the loss needs labels')
        hidden = self.first(image) + self.second(extra['text'])
        return Found(hidden.softmax(-1), [hidden, hidden * 2])


def run(program: Any, *tensors: Tensor) -> tuple[Tensor, ...]:
    found = program.module()(*tensors)
    return (found,) if isinstance(found, Tensor) else tuple(found)


def test_any_inputs_and_outputs() -> None:
    network = Kinds().eval()
    image, text = torch.rand(1, 4), torch.rand(1, 4)
    program = export_program(network, {'image': image, 'extra': {'text': text}, 'mode': 'tensor'})
    assert program.inputs == ('image', 'extra')
    assert program.outputs == ('logits', 'features', 'features_1')
    assert program.dynamic_batch
    image, text = torch.rand(5, 4), torch.rand(5, 4)
    expected = network(image, {'text': text}, mode='tensor')
    got = run(program.exported, image, text)
    for one, other in zip(got, (expected.logits, *expected.features), strict=True):
        torch.testing.assert_close(one, other)


class FixedBatch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(2, -1).sum(1)


def test_the_batch_is_fixed_with_a_reason_where_the_code_fixes_it() -> None:
    program = export_program(FixedBatch(), torch.rand(2, 6))
    assert not program.dynamic_batch and 'fixes the size of the batch' in program.reason


def test_a_number_beside_the_batch_stays_a_number() -> None:
    class Scaled(nn.Module):
        def forward(self, x: Tensor, factor: Tensor) -> Tensor:
            return x * factor

    program = export_program(Scaled(), (torch.rand(1, 3), torch.tensor(2.0)))
    assert program.dynamic_batch
    (found,) = run(program.exported, torch.ones(5, 3), torch.tensor(3.0))
    assert found.tolist() == [[3.0] * 3] * 5


def test_tensors_that_differ_in_the_batch_fix_it() -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor, table: Tensor) -> Tensor:
            return x @ table

    program = export_program(Two(), (torch.rand(2, 3), torch.rand(3, 4)))
    assert program.reason == 'the inputs do not share their first dimension'


class Nothing(nn.Module):
    def forward(self, x: Tensor) -> list[str]:
        return ['cat'] * len(x)


class Values(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.sum().item() > 0 else x


@pytest.mark.parametrize(
    ('network', 'reason'),
    [
        (Nothing(), 'no tensors'),
        # With the line of the forward.
        (Values(), r'this Values: .* by the values of a tensor.*test_program.py:\d+, .*item'),
    ],
)
def test_a_network_is_refused_with_the_reason(network: nn.Module, reason: str) -> None:
    with pytest.raises(EasyPrunerError, match=reason):
        export_program(network, torch.rand(1, 3))


def test_a_quantized_part_is_exported_or_named() -> None:
    network, x = nn.Sequential(torch.ao.nn.quantized.dynamic.Linear(3, 2)), torch.rand(1, 3)
    try:
        program = export_program(network, x)
    except EasyPrunerError as error:
        assert 'in a packed form' in str(error)
        assert '; 0 is quantized by torch.ao: export the network before' in str(error)
    else:  # an older torch takes such parts
        assert torch.equal(program.exported.module()(x), network(x))


@pytest.mark.filterwarnings('ignore:.*torch.jit:FutureWarning')
def test_a_scripted_part_is_named() -> None:
    network = nn.Sequential(torch.jit.script(nn.Linear(3, 2)))
    with pytest.raises(EasyPrunerError, match='0 is a TorchScript module: use the module from'):
        export_program(network, torch.rand(1, 3))


def test_a_batch_without_samples_is_refused() -> None:
    with pytest.raises(EasyPrunerError, match='have no sample'):
        export_program(nn.Linear(3, 2), torch.rand(0, 3))


class OneOrMany(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.shape[0] == 1 else x


@pytest.mark.parametrize('size', [1, 2])
def test_a_branch_for_a_batch_of_one_fixes_the_batch(size: int) -> None:
    x = torch.rand(size, 3)
    program = export_program(OneOrMany(), x)
    assert 'a batch of 1 differently' in program.reason
    assert torch.equal(*run(program.exported, x), OneOrMany()(x))


def test_inputs_that_a_network_changes_in_place_stay() -> None:
    class Normalized(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.sub_(0.5).div_(0.2)

    example, x = torch.rand(1, 3), torch.rand(4, 3)
    given, before = x.clone(), example.clone()
    program = export_program(Normalized(), example)
    (found,) = run(program.exported, given)
    torch.testing.assert_close(found, (x - 0.5) / 0.2)
    assert torch.equal(given, x) and torch.equal(example, before)


def test_each_name_is_given_once() -> None:
    class Names(nn.Module):
        def forward(self, x: list[Tensor], x_1: Tensor) -> dict[str, Any]:
            return {'x': x[0] + x_1, 'y': [x[0] + 1, x[1] - 1], 'y_1': x_1 * 2}

    x = torch.rand(1, 3)
    program = export_program(Names(), ([x, x], x))
    names = (*program.inputs, *program.outputs)
    assert len(set(names)) == len(names)
    # A name that is the only one of its kind stays.
    assert program.inputs == ('x', 'x_2', 'x_1') and program.outputs[1:] == ('y', 'y_2', 'y_1')


@pytest.mark.skipif(torch.__version__ < '2.5', reason='programs have other batch norms before 2.5')
def test_batch_norms_are_folded_where_nothing_else_reads_the_layer() -> None:
    torch.manual_seed(0)
    network = Norms().eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            for tensor in (module.running_mean, module.running_var, module.weight, module.bias):
                assert tensor is not None
                nn.init.uniform_(tensor, 0.5, 2)
    images = torch.rand(2, 3, 6, 6)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    program = export_program(network, images).exported
    assert fold_batch_norms(program) == 3
    torch.testing.assert_close(run(program, images)[0], network(images))
    left = [node for node in program.graph.nodes if 'batch_norm' in str(node.target)]
    assert len(left) == 2
    assert all(torch.equal(t, before[name]) for name, t in network.state_dict().items())


class Norms(nn.Module):
    """Three batch norms that can be folded; one whose input is used twice, one that shares it."""

    def __init__(self) -> None:
        super().__init__()
        self.bare = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8))
        self.biased = nn.Sequential(nn.Conv2d(8, 8, 3, groups=4), nn.BatchNorm2d(8))
        self.used, self.norm = nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)
        self.shared, self.twice = nn.Linear(8, 8), nn.BatchNorm1d(8)
        self.head = nn.Sequential(nn.Linear(8, 4), nn.BatchNorm1d(4))

    def forward(self, x: Tensor) -> Tensor:
        x = self.used(self.biased(self.bare(x)))
        x = (x + self.norm(x)).mean((2, 3))
        return self.head(self.shared(self.twice(self.shared(x))))


class Command:
    """Runs a command if it is unpickled."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.folder),)

    def __init__(self, folder: Path) -> None:
        self.folder = folder


class TestLoadProgram:
    def test_it_returns_what_was_saved(self, tmp_path: Path) -> None:
        network, image = nn.Linear(4, 3).eval(), torch.randn(2, 4)
        torch.export.save(export_program(network, image).exported, tmp_path / 'a.pt2')
        (found,) = run(load_program(tmp_path / 'a.pt2'), image)
        torch.testing.assert_close(found, network(image))

    def test_nothing_is_unpickled_while_it_loads(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Torch before 2.6 loads the weights of a program like this."""
        torch.save(Command(tmp_path / 'made'), tmp_path / 'weights.pth')
        monkeypatch.setattr(torch.export, 'load', lambda path: torch.load(path))
        with pytest.raises(Exception, match=r'[Ww]eights'):
            load_program(tmp_path / 'weights.pth')
        assert not (tmp_path / 'made').exists()
        assert not isinstance(torch.load, partial)
