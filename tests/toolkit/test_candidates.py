"""Candidates: widths in proportion to rates, measured on a cut copy, each once."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from easypruner_plugins.threshold import Threshold
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import easypruner
from easypruner import Context, Masks
from easypruner.errors import ConfigError
from easypruner.toolkit.candidates import RECORDS, Trial, Trials, Widths
from tests.contexts import restless, tiny_batches, tiny_context
from tests.networks import Plain, example, lively

HALF = Masks({'body.0.0': torch.arange(8) % 2 == 0, 'body.1.0': torch.arange(12) % 3 > 0})


@given(data=st.data(), seed=st.integers(0, 99))
def test_at_a_threshold_groups_lose_shares_in_proportion_to_rates(
    data: st.DataObject, seed: int
) -> None:
    sizes = data.draw(st.lists(st.integers(1, 20), min_size=1, max_size=4))
    generator = torch.Generator().manual_seed(seed)
    scores = {
        str(n): torch.randint(5, (size,), generator=generator) for n, size in enumerate(sizes)
    }
    widths = Widths.of(scores)
    rates = widths.draw(generator)
    threshold = data.draw(st.floats(0, 1))
    masks = widths.scores(rates).above(threshold)
    for (name, score), rate in zip(scores.items(), rates, strict=True):
        gone = [i for i in range(score.numel()) if not masks[name][i]]
        expected = threshold * rate * score.numel()
        assert len(gone) == pytest.approx(expected, abs=1) and len(gone) <= expected + 1e-9
        lowest = sorted(range(score.numel()), key=lambda i, s=score: (float(s[i]), i))
        assert set(gone) == set(lowest[: len(gone)])


def test_beyond_the_most_units_go_after_all_others() -> None:
    widths = Widths.of({'a': torch.arange(10), 'b': torch.arange(4)}, 0.5)
    scores = widths.scores((0.01, 0.5))
    within = torch.cat([scores['a'][:5], scores['b'][:2]])
    beyond = torch.cat([scores['a'][5:], scores['b'][2:]])
    assert within.max() < beyond.min()


def test_rates_are_above_zero_and_up_to_the_most() -> None:
    widths = Widths.of({str(n): torch.zeros(3) for n in range(2000)}, 0.7)
    rates = widths.draw(torch.Generator().manual_seed(0))
    assert 0 < min(rates) < 0.01 and 0.69 < max(rates) <= 0.7
    assert widths.even == (0.7,) * 2000


def normalized(x: Tensor, norm: nn.BatchNorm2d, mean: Tensor, var: Tensor) -> Tensor:
    shape = (1, -1, 1, 1)
    scaled = (x - mean.view(shape)) / torch.sqrt(var.view(shape) + norm.eps)
    return torch.relu(scaled * norm.weight.view(shape) + norm.bias.view(shape))


def adapted_loss(model: nn.Module, calibration: int, batches: int) -> float:
    """Return the loss with statistics that are averages over what each batch norm meets."""
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
    model = lively(Plain)
    graph = easypruner.trace(model, example())
    met = Trial('loss', batches, calibration, 'Me').fitness(graph, HALF, tiny_context())
    cut = copy.deepcopy(model)
    easypruner.prune(cut, HALF, example_inputs=example())
    assert met == pytest.approx(-adapted_loss(cut, min(calibration, 3), batches), rel=1e-5)


@torch.no_grad()
def test_without_calibration_the_statistics_stay() -> None:
    model, context = lively(Plain), tiny_context()
    graph = easypruner.trace(model, example())
    cut = copy.deepcopy(model)
    easypruner.prune(cut, HALF, example_inputs=example())
    losses = [float(context.loss(cut, batch)) for batch in context.batches()]
    model.train()
    met = Trial('loss', 3, 0, 'Me').fitness(graph, HALF, context)
    assert met == pytest.approx(-sum(losses) / 3)
    assert Trial('accuracy', 3, 0, 'Me').fitness(graph, HALF, context) == context.evaluate(cut)


def test_candidates_meet_the_same_data() -> None:
    graph = easypruner.trace(lively(Plain), example())
    trial, context = Trial('loss', 2, 2, 'Me'), restless(tiny_context())
    torch.manual_seed(0)
    first = trial.fitness(graph, HALF, context)
    torch.rand(5)
    assert trial.fitness(graph, HALF, context) == first
    assert trial.fitness(graph, HALF, replace(context, seed=1)) != first


class Counted:
    """A context's loss that says how often it was asked, and may stop the search."""

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
    graph = easypruner.trace(lively(Plain), example())
    trial = Trial('loss', 1, 1, 'Me')
    context, loss = counted(tmp_path / 'stage')
    trials = Trials(trial, graph, context)
    found = trials.fitness(HALF)
    assert trials.fitness(Masks(dict(reversed([*HALF.items()])))) == found and loss.calls == 1
    assert Trials(trial, graph, context).fitness(HALF) == found and loss.calls == 1
    (line,) = (tmp_path / 'stage' / RECORDS).read_text().splitlines()
    assert json.loads(line)['fitness'] == found
    assert Trials(trial, graph, context).fitness(Masks()) != found and loss.calls == 2


def test_nothing_is_taken_from_another_setting(tmp_path: Path) -> None:
    model = lively(Plain)
    graph = easypruner.trace(model, example())
    trial = Trial('loss', 1, 1, 'Me')
    context, loss = counted(tmp_path)
    Trials(trial, graph, context).fitness(HALF)
    Trials(replace(trial, calibration_batches=2), graph, context).fitness(HALF)
    Trials(trial, graph, replace(context, seed=5)).fitness(HALF)
    with torch.no_grad():
        model.body[0][1].running_mean[0] += 1
    Trials(trial, graph, context).fitness(HALF)
    assert loss.calls == 4
    Trials(trial, graph, replace(context, folder=None)).fitness(HALF)
    assert loss.calls == 5 and len((tmp_path / RECORDS).read_text().splitlines()) == 4


def test_half_a_line_is_measured_again(tmp_path: Path) -> None:
    graph = easypruner.trace(lively(Plain), example())
    trial = Trial('loss', 1, 1, 'Me')
    context, loss = counted(tmp_path)
    found = [Trials(trial, graph, context).fitness(masks) for masks in (HALF, Masks())]
    file = tmp_path / RECORDS
    file.write_bytes(file.read_bytes()[:-20])
    again = Trials(trial, graph, context)
    assert [again.fitness(masks) for masks in (HALF, Masks())] == found and loss.calls == 3
    assert Trials(trial, graph, context).fitness(Masks()) == found[1] and loss.calls == 3


def test_what_is_no_number_is_the_worst(tmp_path: Path) -> None:
    graph = easypruner.trace(lively(Plain), example())
    context = tiny_context(loss=lambda model, batch: torch.tensor(float('nan')), folder=tmp_path)
    for _ in range(2):
        trials = Trials(Trial('loss', 1, 0, 'Me'), graph, context)
        assert trials.fitness(HALF) == -float('inf')
    assert json.loads((tmp_path / RECORDS).read_text())['fitness'] is None


def test_widths_suit_budgets_that_know_no_rates() -> None:
    graph = easypruner.trace(lively(Plain), example())
    widths = Widths.of({n: torch.arange(g.size) for n, g in graph.groups.items()})
    masks = Threshold(1.0)(widths.scores((0.5, 0.25)), graph, Context())
    assert [masks.kept(name) for name in masks] == [4, 9]


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        (('los', 1, 1), "did you mean 'loss'"),
        (('loss', 0, 1), 'batches=0 of Me'),
        (('loss', 1, -1), 'calibration_batches=-1 of Me'),
    ],
)
def test_arguments_that_are_none_are_refused(arguments: tuple, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Trial(*arguments, 'Me')
