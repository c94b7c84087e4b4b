"""Candidates: each is measured once, on a cut copy and on the same batches."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import easypruner
from easypruner import Context, Masks
from easypruner.errors import ConfigError
from easypruner.graph import ChannelGraph
from easypruner.strategies.sources.candidates import RECORDS, Measurement, Measurements
from easypruner.testing import example_inputs, randomized_network, tiny_batches, tiny_context
from easypruner.testing.networks import Plain
from tests.helpers.batches import shuffled_batches
from tests.helpers.networks import traced_network

HALF = Masks({'body.0.0': torch.arange(8) % 2 == 0, 'body.1.0': torch.arange(12) % 3 > 0})


def fitness(measurement: Measurement, graph: ChannelGraph, context: Context) -> float:
    return measurement.fitness(graph, HALF, context, measurement.draw_batches(context))


def normalized(x: Tensor, norm: nn.BatchNorm2d, mean: Tensor, var: Tensor) -> Tensor:
    shape = (1, -1, 1, 1)
    scaled = (x - mean.view(shape)) / torch.sqrt(var.view(shape) + norm.eps)
    return torch.relu(scaled * norm.weight.view(shape) + norm.bias.view(shape))


def adapted_loss(model: nn.Module, calibration: int, batches: int) -> float:
    """Return the loss with statistics averaged over the inputs of each batch norm."""
    data = tiny_batches(3)
    maps = [images for images, _ in data[:calibration]]
    statistics = []
    for number in range(2):
        conv, norm = model.body[number][0], model.body[number][1]
        maps = [conv(x) for x in maps]
        found = [
            (x.mean((0, 2, 3)), x.var((0, 2, 3)), x.var((0, 2, 3), unbiased=False)) for x in maps
        ]
        statistics.append([sum(f[i] for f in found) / len(found) for i in range(2)])
        maps = [normalized(x, norm, f[0], f[2]) for x, f in zip(maps, found, strict=True)]
    losses = []
    for images, classes in data[:batches]:
        x = images
        for number in range(2):
            x = normalized(model.body[number][0](x), model.body[number][1], *statistics[number])
        for row, label in zip(model.head(x.mean((2, 3))), classes, strict=True):
            losses.append(float(torch.logsumexp(row, 0) - row[label]))
    return sum(losses) / len(losses)


@torch.no_grad()
@pytest.mark.parametrize(('calibration', 'batches'), [(1, 3), (2, 1), (9, 2)])
def test_the_loss_of_a_cut_copy_with_its_batch_norms_adapted(
    calibration: int, batches: int
) -> None:
    model = randomized_network(Plain)
    graph = easypruner.trace(model, example_inputs())
    actual = fitness(Measurement('loss', batches, calibration, 'Me'), graph, tiny_context())
    cut = copy.deepcopy(model)
    easypruner.prune(cut, HALF, example_inputs=example_inputs())
    assert actual == pytest.approx(-adapted_loss(cut, min(calibration, 3), batches), rel=1e-5)


@torch.no_grad()
def test_without_calibration_the_statistics_stay() -> None:
    model, context = randomized_network(Plain), tiny_context()
    graph = easypruner.trace(model, example_inputs())
    cut = copy.deepcopy(model)
    easypruner.prune(cut, HALF, example_inputs=example_inputs())
    losses = [float(context.loss(cut, batch)) for batch in context.batches()]
    model.train()
    actual = fitness(Measurement('loss', 3, 0, 'Me'), graph, context)
    assert actual == pytest.approx(-sum(losses) / 3)
    assert fitness(Measurement('accuracy', 3, 0, 'Me'), graph, context) == context.evaluate(cut)


def test_candidates_get_the_same_data() -> None:
    graph = traced_network(Plain)
    measurement, context = Measurement('loss', 2, 2, 'Me'), shuffled_batches(tiny_context())
    torch.manual_seed(0)
    first = fitness(measurement, graph, context)
    torch.rand(5)
    assert fitness(measurement, graph, context) == first
    assert fitness(measurement, graph, replace(context, seed=1)) != first


def in_place(context: Context) -> Context:
    """Return a context whose loss changes its batch."""

    def loss(model: nn.Module, batch: list[Tensor]) -> Tensor:
        batch[0].mul_(0.5)
        found = context.loss(model, batch)
        batch[1].zero_()
        return found

    return replace(context, loss=loss)


def refilled(batches: list[tuple[Tensor, Tensor]]) -> Iterator[list[Tensor]]:
    """Yield batches in the same memory, like a loader that reuses it."""
    buffer = [torch.empty_like(part) for part in batches[0]]
    for batch in batches:
        for part, value in zip(buffer, batch, strict=True):
            part.copy_(value)
        yield buffer


def test_candidates_get_the_same_batches_of_a_loader_with_its_own_generator() -> None:
    graph = traced_network(Plain)
    data = TensorDataset(*(torch.cat(parts) for parts in zip(*tiny_batches(9), strict=True)))
    loader = DataLoader(data, 8, shuffle=True, generator=torch.Generator().manual_seed(5))
    for context in (
        replace(tiny_context(), batches=lambda: loader),
        in_place(replace(tiny_context(), batches=lambda: loader)),
        in_place(replace(tiny_context(), batches=lambda: refilled(tiny_batches(9)))),
    ):
        measurements = Measurements(Measurement('loss', 2, 2, 'Me'), graph, context)
        # No mask and masks that keep everything are the same network.
        everything = Masks({name: torch.ones_like(mask) for name, mask in HALF.items()})
        assert (
            measurements.fitness(Masks())
            == measurements.fitness(everything)
            != measurements.fitness(HALF)
        )


def test_batches_in_the_same_memory_are_distinguished() -> None:
    graph = traced_network(Plain)
    measurement, batches = Measurement('loss', 3, 2, 'Me'), tiny_batches(3)
    usual, refills = (
        Measurements(measurement, graph, replace(tiny_context(), batches=opened)).fitness(HALF)
        for opened in (lambda: iter(batches), lambda: refilled(batches))
    )
    assert usual == refills


def test_networks_and_batches_with_tensors_that_were_computed() -> None:
    model = randomized_network(Plain)
    measurement, context = Measurement('loss', 2, 1, 'Me'), tiny_context()
    expected = Measurements(
        measurement, easypruner.trace(model, example_inputs()), context
    ).fitness(HALF)
    model.last = model.head.weight * 2
    batches = [(images.requires_grad_() * 1, classes) for images, classes in context.batches()]
    graph = easypruner.trace(model, example_inputs())
    assert (
        Measurements(measurement, graph, replace(context, batches=lambda: batches)).fitness(HALF)
        == expected
    )


class Counted:
    """A context's loss that counts its calls and may stop the search."""

    def __init__(self, context: Context, stop_after: int | None = None) -> None:
        self.calls = 0
        self._loss, self._stop_after = context.loss, stop_after

    def __call__(self, model: nn.Module, batch: object) -> Tensor:
        if self.calls == self._stop_after:
            raise KeyboardInterrupt
        self.calls += 1
        return self._loss(model, batch)


def counted(folder: Path | None, **changes: object) -> tuple[Context, Counted]:
    context = replace(tiny_context(), folder=folder, **changes)
    loss = Counted(context)
    return replace(context, loss=loss), loss


def test_each_candidate_is_measured_once(tmp_path: Path) -> None:
    graph = traced_network(Plain)
    measurement = Measurement('loss', 1, 1, 'Me')
    context, loss = counted(tmp_path / 'stage')
    measurements = Measurements(measurement, graph, context)
    found = measurements.fitness(HALF)
    assert measurements.fitness(Masks(dict(reversed([*HALF.items()])))) == found and loss.calls == 1
    assert Measurements(measurement, graph, context).fitness(HALF) == found and loss.calls == 1
    (line,) = (tmp_path / 'stage' / RECORDS).read_text().splitlines()
    assert json.loads(line)['fitness'] == found
    assert Measurements(measurement, graph, context).fitness(Masks()) != found and loss.calls == 2


def test_nothing_is_taken_from_another_setting(tmp_path: Path) -> None:
    model = randomized_network(Plain)
    graph = easypruner.trace(model, example_inputs())
    measurement = Measurement('loss', 1, 1, 'Me')
    context, loss = counted(tmp_path)
    Measurements(measurement, graph, context).fitness(HALF)
    Measurements(replace(measurement, calibration_batches=2), graph, context).fitness(HALF)
    Measurements(measurement, graph, replace(context, seed=5)).fitness(HALF)
    with torch.no_grad():
        model.body[0][1].running_mean[0] += 1
    Measurements(measurement, graph, context).fitness(HALF)
    assert loss.calls == 4
    Measurements(measurement, graph, replace(context, folder=None)).fitness(HALF)
    assert loss.calls == 5 and len((tmp_path / RECORDS).read_text().splitlines()) == 4


@pytest.mark.parametrize('buffer', [0, 1])
def test_nothing_is_taken_from_other_batches(buffer: int, tmp_path: Path) -> None:
    graph = traced_network(Plain)
    context, loss = counted(tmp_path)
    batches = tiny_batches(2)
    for image in (0.5, 0.5, 0.7):
        batches[buffer][0][3, 1, 2, 2] = image
        changed = replace(context, batches=lambda: [dict(inputs=[b], more=None) for b in batches])
        unpacked = replace(
            changed,
            loss=lambda model, batch: loss(model, batch['inputs'][0]),
            forward=lambda model, batch: context.forward(model, batch['inputs'][0]),
        )
        Measurements(Measurement('loss', 1, 2, 'Me'), graph, unpacked).fitness(HALF)
    assert loss.calls == 2


def test_half_a_line_is_measured_again(tmp_path: Path) -> None:
    graph = traced_network(Plain)
    measurement = Measurement('loss', 1, 1, 'Me')
    context, loss = counted(tmp_path)
    found = [Measurements(measurement, graph, context).fitness(masks) for masks in (HALF, Masks())]
    file = tmp_path / RECORDS
    file.write_bytes(file.read_bytes()[:-20])
    again = Measurements(measurement, graph, context)
    assert [again.fitness(masks) for masks in (HALF, Masks())] == found and loss.calls == 3
    assert (
        Measurements(measurement, graph, context).fitness(Masks()) == found[1] and loss.calls == 3
    )


@pytest.mark.parametrize(
    'fitness',
    ['NaN', 'Infinity', '-Infinity', '1e999', '9' * 400, '"-0.5"', 'true', '[' * 200_000, '{}'],
    ids=lambda text: text[:9],
)
def test_invalid_lines_are_ignored(fitness: str, tmp_path: Path) -> None:
    graph = traced_network(Plain)
    measurement = Measurement('loss', 1, 1, 'Me')
    context, loss = counted(tmp_path)
    found = Measurements(measurement, graph, context).fitness(HALF)
    file = tmp_path / RECORDS
    start, _, _ = file.read_text().partition('"fitness"')
    file.write_text(f'{start}"fitness": {fitness}}}\n{fitness}\n')
    assert Measurements(measurement, graph, context).fitness(HALF) == found and loss.calls == 2
    assert Measurements(measurement, graph, context).fitness(HALF) == found and loss.calls == 2


def test_nan_fitness_is_the_worst(tmp_path: Path) -> None:
    graph = traced_network(Plain)
    context = replace(
        tiny_context(), loss=lambda model, batch: torch.tensor(float('nan')), folder=tmp_path
    )
    for _ in range(2):
        measurements = Measurements(Measurement('loss', 1, 0, 'Me'), graph, context)
        assert measurements.fitness(HALF) == -float('inf')
    assert json.loads((tmp_path / RECORDS).read_text())['fitness'] is None


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        (('los', 1, 1), "did you mean 'loss'"),
        (('loss', 0, 1), 'batches=0 of Me'),
        (('loss', 1, -1), 'calibration_batches=-1 of Me'),
    ],
)
def test_invalid_arguments_are_refused(arguments: tuple, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Measurement(*arguments, 'Me')
