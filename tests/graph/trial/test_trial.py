"""Trial and repair: numbers that Python code stores are repaired, or their groups are frozen."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import easypruner
from easypruner.errors import RecordError
from easypruner.graph import ArchitectureRecord
from easypruner.testing import example_inputs, random_masks, randomized_network
from easypruner.testing.networks import block
from tests.helpers.networks import cut_randomly


class SplitByWidth(nn.Module):
    """Splits into parts of a width it remembers, as Res2Net does, in two blocks."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.width = 6
            self.expand, self.second = block(8, 18), block(6, 6)
            self.project = nn.Conv2d(18, 8, 1)

        def forward(self, x: Tensor) -> Tensor:
            first, second, third = torch.split(self.expand(x), self.width, 1)
            return x + self.project(torch.cat([first, self.second(second), third], 1))

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one, self.two = block(3, 8), self.Block(), self.Block()
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.two(self.one(self.stem(x))).mean((2, 3)))


class UnequalSplit(nn.Module):
    """Splits into parts of unequal, remembered sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes = [4, 7]
        self.stem, self.left, self.right = block(3, 11), block(4, 5), block(7, 6)
        self.head = nn.Linear(11, 5)

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.stem(x).split(self.sizes, 1)
        return self.head(torch.cat([self.left(left), self.right(right)], 1).mean((2, 3)))


class HardCoded(nn.Module):
    """Has a width in the source code, where nothing can repair it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner, self.outer = block(3, 8), block(8, 6), nn.Conv2d(6, 8, 1)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = (x + self.outer(self.inner(x))).view(-1, 8, 64)
        return self.head(x.mean(2))


class HardCodedSize(HardCoded):
    """The same, but torch itself refuses the view of a pruned tensor."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = (x + self.outer(self.inner(x))).view(2, 8, 64)
        return self.head(x.mean(2))


@pytest.mark.parametrize('build', [SplitByWidth, UnequalSplit])
def test_stored_widths_are_repaired(build: type[nn.Module], tmp_path: Path) -> None:
    model = randomized_network(build)
    graph = easypruner.trace(model, example_inputs())
    masks = random_masks(graph, keep=0.5, seed=1)
    assert sum(group.size for group in graph.groups.values()) > 20
    assert easypruner.verify(model, masks, example_inputs()).error < 1e-12
    record = easypruner.prune(model, masks, graph=graph)
    record.save(tmp_path / 'architecture.json')
    torch.save(model.state_dict(), tmp_path / 'pruned.pth')
    again = easypruner.load_pruned(build, tmp_path / 'pruned.pth', tmp_path / 'architecture.json')
    assert torch.equal(again.eval()(example_inputs()), model(example_inputs()))


def test_the_repaired_widths_are_those_of_the_masks() -> None:
    model = randomized_network(UnequalSplit)
    graph = easypruner.trace(model, example_inputs())
    left, right = (name for name, group in graph.groups.items() if group.size in (4, 7))
    masks = {left: torch.arange(4) != 1, right: torch.arange(7) < 2}
    assert model.sizes == [4, 7], 'tracing leaves the model as it was'
    assert [str(repair) for repair in graph.repairs(masks)] == ['sizes: [4, 7] -> [3, 2]']
    assert graph.repairs({left: masks[left]})[0].after == [3, 7] and not graph.repairs({})
    record = easypruner.prune(model, masks, graph=graph)
    assert model.sizes == [3, 2] and not graph.repairs({})
    assert record.attributes == {('', 'sizes'): (3, 2)}


@pytest.mark.parametrize(
    ('build', 'line'), [(HardCoded, 'view(-1, 8, 64)'), (HardCodedSize, 'view(2, 8, 64)')]
)
def test_widths_in_the_source_code_freeze_their_group_and_name_the_line(
    build: type[nn.Module], line: str
) -> None:
    graph = easypruner.trace(build(), example_inputs())
    assert list(graph.groups) == ['inner.0']
    reason = next(f.reason for f in graph.frozen if (f.param, f.dim) == ('stem.0.weight', 0))
    assert 'test_trial.py' in reason and line in reason


def test_a_record_sets_only_numbers_that_the_model_has() -> None:
    model = randomized_network(UnequalSplit)
    record = cut_randomly(model, seed=1)
    for attribute in ('__class__', 'stem', 'nothing', 'training'):
        forged = ArchitectureRecord(
            record.model, record.tensors, record.groups, {('', attribute): 3}
        )
        with pytest.raises(RecordError, match='no such number'):
            forged.apply(randomized_network(UnequalSplit), ())


def test_a_forward_that_differs_from_run_to_run_is_still_pruned() -> None:
    class Alternating(SplitByWidth):
        calls = 0

        def forward(self, x: Tensor) -> Tensor:
            Alternating.calls += 1
            return super().forward(x * 1 if Alternating.calls % 2 else x)

    model = Alternating()
    assert easypruner.trace(model, example_inputs()).groups


class OfKnownDevices(nn.Module):
    """Refuses all devices but those that its author knew, so that it runs on no meta tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(5, 2), nn.ReLU(), nn.Linear(2, 6), nn.Linear(6, 3))

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type not in ('cpu', 'cuda'):
            raise NotImplementedError(f'{x.device}')
        return self.layers(x)


def test_two_channels_of_a_network_that_refuses_meta_tensors_go() -> None:
    graph = easypruner.trace(OfKnownDevices(), torch.rand(4, 5))
    sizes = {name: group.size for name, group in graph.groups.items()}
    assert sizes == {'layers.0': 2, 'layers.2': 6}
