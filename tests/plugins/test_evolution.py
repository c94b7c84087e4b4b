"""Evolution: generations bred from the best, the same for the same seed, resumed at any point."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from easypruner_plugins.eagle_eye import EagleEye
from easypruner_plugins.evolution import Evolution
from easypruner_plugins.macs import Macs
from easypruner_plugins.random_source import Random
from easypruner_plugins.ratio import Ratio
from torch import Tensor, nn

import easypruner
from easypruner import Context
from easypruner.errors import ConfigError, EasyPrunerError
from easypruner.strategies.sources.search import UnitOrder
from easypruner.testing import example_inputs, randomized_network, tiny_context
from tests.helpers.edge_cases import check_edge_cases
from tests.helpers.networks import NETWORKS
from tests.helpers.searching import (
    check_resume,
    known_loss,
    loss_least_at_seven,
    plain_graph,
    widths_of,
)


@pytest.mark.parametrize('seed', range(4))
def test_the_best_measured_candidate_wins(seed: int) -> None:
    context, loss = known_loss(loss_least_at_seven)
    source = Evolution(Macs(keep=0.5), population=4, generations=4, seed=seed, batches=1)
    masks = source.select(plain_graph(), context)
    assert len(set(loss.asked)) == len(loss.asked) > 3, 'equal candidates are measured once'
    assert widths_of(masks) == min(loss.asked, key=loss_least_at_seven)


def test_one_generation_is_what_a_random_search_draws() -> None:
    graph = plain_graph()
    for population in (1, 6):
        context, bred = known_loss(loss_least_at_seven)
        one = Evolution(Macs(keep=0.5), population=population, generations=1, batches=1)
        masks = one.select(graph, context)
        context, drawn = known_loss(loss_least_at_seven)
        other = EagleEye(Macs(keep=0.5), candidates=population, tolerance=1, batches=1)
        assert other.select(graph, context) == masks and bred.asked == drawn.asked


class Many(nn.Module):
    """Parallel layers, each a group."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(3, 16, 1) for _ in range(8))
        self.heads = nn.ModuleList(nn.Conv2d(16, 5, 1) for _ in range(8))

    def forward(self, x: Tensor) -> Tensor:
        pairs = zip(self.heads, self.layers, strict=True)
        return torch.stack([head(layer(x)) for head, layer in pairs]).sum((0, 3, 4))


@pytest.mark.in_ci
def test_breeding_finds_more_than_random_search_with_as_many_candidates() -> None:
    torch.manual_seed(0)
    graph = easypruner.trace(Many().eval(), example_inputs())

    def loss(model: nn.Module, batch: object) -> Tensor:
        widths = [layer.out_channels for layer in model.layers]
        return torch.tensor(float(sum(widths[::2]) - sum(widths[1::2])))

    def width(masks: easypruner.Masks) -> float:
        kept = [masks.kept(name) for name in graph.groups]
        return sum(kept[::2]) - sum(kept[1::2])

    context = replace(tiny_context(), loss=loss)
    for seed in range(2):
        common = dict(max_removed=1.0, batches=1, calibration_batches=0, seed=seed)
        bred = Evolution(Ratio(keep=0.5), population=12, generations=8, parents=4, **common)
        drawn = EagleEye(Ratio(keep=0.5), candidates=96, tolerance=1, **common)
        assert width(bred.select(graph, context)) < width(drawn.select(graph, context))


def vectors(mutation: float) -> tuple[list[tuple[float, ...]], list[tuple[float, ...]]]:
    """Return the vectors of the first generation, and those of the second."""
    source = Evolution(Ratio(keep=0.5), population=40, generations=2, parents=3, mutation=mutation)
    found: list[tuple[float, ...]] = []
    original = UnitOrder.scores

    def noted(self: UnitOrder, rates: tuple[float, ...]) -> object:
        found.append(rates)
        return original(self, rates)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(UnitOrder, 'scores', noted)
        torch.manual_seed(0)
        graph = easypruner.trace(Many().eval(), example_inputs())
        context = replace(tiny_context(), loss=lambda model, batch: torch.tensor(float(len(found))))
        source.select(graph, context)
    return found[:40], found[40:]


@pytest.mark.parametrize(
    'mutation', [0.3, *(pytest.param(rate, marks=pytest.mark.slow) for rate in (0.0, 1.0))]
)
def test_children_have_the_rates_of_the_best(mutation: float) -> None:
    first, second = vectors(mutation)
    # The loss is the number of the candidate: the first three are the best.
    parents = first[:3]
    changed = [
        min(sum(a != b for a, b in zip(child, p, strict=True)) for p in parents)
        for child in second[::2]
    ]
    for child in second[1::2]:
        assert all(rate in {p[index] for p in parents} for index, rate in enumerate(child))
    assert len(second) == 40 and min(changed) >= 1
    expected = 1 + 7 * mutation
    assert sum(changed) / len(changed) == pytest.approx(expected, abs=0.6)


def test_a_stopped_search_continues(tmp_path: Path) -> None:
    check_resume(
        lambda: Evolution(Macs(keep=0.5), population=4, generations=4, batches=1), tmp_path
    )


def test_the_seed_decides() -> None:
    graph = plain_graph()
    asked = []
    for seed in (None, 0, 1):
        context, loss = known_loss(loss_least_at_seven)
        Evolution(Macs(keep=0.5), population=5, generations=3, seed=seed).select(graph, context)
        asked.append(loss.asked)
    assert asked[0] == asked[1] != asked[2]


def test_nothing_but_nan_is_an_error() -> None:
    context, _ = known_loss(lambda widths: float('nan'))
    with pytest.raises(EasyPrunerError, match='no candidate with a finite loss'):
        Evolution(Macs(keep=0.5), population=2, generations=2).select(plain_graph(), context)


@pytest.mark.parametrize('build', NETWORKS)
def test_chosen_masks_verify(build: type[nn.Module]) -> None:
    model = randomized_network(build)
    graph = easypruner.trace(model, example_inputs())
    source = Evolution(Macs(keep=0.6), Random(), population=2, generations=2)
    masks = source.select(graph, tiny_context())
    assert graph.cost(masks).macs <= 0.6 * graph.cost().macs
    assert easypruner.verify(model, masks, example_inputs()).error < 1e-12
    source.dry_run(graph, Context())


def test_edge_cases() -> None:
    check_edge_cases(lambda budget: Evolution(budget, population=2, generations=2))


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        ({'population': 0}, 'population=0 of Evolution'),
        ({'generations': 1.5}, 'generations=1.5 of Evolution'),
        ({'parents': 0}, 'parents=0 of Evolution'),
        ({'mutation': -0.1}, 'mutation=-0.1 of Evolution'),
        ({'max_removed': 1.1}, 'max_removed=1.1 of Evolution'),
    ],
)
def test_invalid_arguments_are_refused(arguments: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Evolution(**arguments)
