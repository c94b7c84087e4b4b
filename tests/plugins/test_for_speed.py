"""Macs(for_speed=): the same MACs in less time, for few of the scores, by a known law of time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from easypruner_plugins.macs import Macs
from easypruner_plugins.params import Params
from torch import Tensor, nn

from easypruner import Budget, Context, Masks, Scores
from easypruner.errors import BudgetError, ConfigError
from easypruner.runtimes import Session
from easypruner.strategies.budgets.costs import Tightest
from tests.helpers.clocked import Clock, Clocked, network_seconds, use_clock
from tests.helpers.networks import traced_network

SLOW = 6.0
"""The time of a multiply-add of the last convolution, relative to that of the others."""


class Layers(nn.Module):
    """Convolutions, the last of which is slow in the runtime of these tests."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 96, 3), nn.ReLU(), nn.Conv2d(96, 64, 1)
        )
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).relu().mean((2, 3)))


class Uneven(Clocked):
    """Takes more time for the multiply-adds of 1x1 convolutions."""

    def layer_sessions(self, layers: Sequence[tuple[nn.Module, Any]]) -> list[Session]:
        return [
            self._taking(
                network_seconds(layer, inputs)
                * (SLOW if getattr(layer, 'kernel_size', None) == (1, 1) else 1.0)
            )
            for layer, inputs in layers
        ]


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Clock:
    return use_clock(monkeypatch, tmp_path / 'cache')


GRAPH = traced_network(Layers)
FIRST, MIDDLE, LAST = GRAPH.groups
WHOLE = GRAPH.cost().macs


def some_scores(seed: int) -> Scores:
    generator = torch.Generator().manual_seed(seed)
    return Scores({n: torch.rand(g.size, generator=generator) for n, g in GRAPH.groups.items()})


def masks_of(budget: Budget, scores: Scores) -> Masks:
    return budget(scores, GRAPH, Context())


def kept(masks: Mapping[str, Tensor], scores: Scores) -> float:
    return sum(float(score[masks[name]].sum()) for name, score in scores.items())


def seconds(masks: Mapping[str, Tensor]) -> float:
    """Return the time under masks by the law of the runtime."""
    widths = {name: int(mask.sum()) for name, mask in masks.items()}
    height, width = GRAPH.example_inputs.shape[2] - 4, GRAPH.example_inputs.shape[3] - 4
    slow = widths[MIDDLE] * widths[LAST] * height * width * len(GRAPH.example_inputs)
    return 1e-9 * (GRAPH.cost(masks).macs + (SLOW - 1) * slow)


@pytest.mark.parametrize('seed', range(3))
class TestSameMacs:
    def test_less_time_for_at_most_the_share_of_the_scores(self, seed: int) -> None:
        scores = some_scores(seed)
        plain = masks_of(Macs(keep=0.5), scores)
        times = [seconds(plain)]
        for share in (0.02, 0.05, 0.2):
            masks = masks_of(Macs(keep=0.5, for_speed=share, runtime=Uneven()), scores)
            assert 0.47 * WHOLE < GRAPH.cost(masks).macs <= 0.5 * WHOLE
            assert kept(masks, scores) >= (1 - share) * kept(plain, scores)
            times.append(seconds(masks))
        assert times == sorted(times, reverse=True) and times[-1] < 0.9 * times[0]

    def test_each_group_keeps_its_best_units(self, seed: int) -> None:
        scores = some_scores(seed)
        masks = masks_of(Macs(keep=0.5, for_speed=0.2, runtime=Uneven()), scores)
        for name, mask in masks.items():
            assert not (~mask).any() or scores[name][mask].min() >= scores[name][~mask].max()

    def test_with_other_budgets_all_are_met(self, seed: int) -> None:
        scores = some_scores(seed)
        budgets = [Macs(keep=0.6, for_speed=0.2, runtime=Uneven()), Params(keep=0.55)]
        masks, plain = (
            masks_of(Tightest(each), scores) for each in (budgets, [Macs(keep=0.6), budgets[1]])
        )
        assert GRAPH.cost(masks).macs <= 0.6 * WHOLE
        assert GRAPH.cost(masks).params <= 0.55 * GRAPH.cost().params
        assert seconds(masks) < seconds(plain)
        assert kept(masks, scores) >= 0.8 * kept(plain, scores)

    def test_where_all_multiply_adds_take_the_same_time_the_scores_decide(self, seed: int) -> None:
        scores = some_scores(seed)
        plain = masks_of(Macs(keep=0.5), scores)
        masks = masks_of(Macs(keep=0.5, for_speed=0.05, runtime=Clocked()), scores)
        assert kept(masks, scores) >= 0.95 * kept(plain, scores)
        assert GRAPH.cost(masks).macs == pytest.approx(GRAPH.cost(plain).macs, rel=0.02)


def test_scores_below_zero_have_no_shares() -> None:
    scores = Scores({n: torch.linspace(-1, 1, g.size) for n, g in GRAPH.groups.items()})
    with pytest.raises(BudgetError, match=r'group .* is -1, but for_speed .* at least 0.*another'):
        masks_of(Macs(keep=0.5, for_speed=0.1, runtime=Uneven()), scores)


def test_a_runtime_alone_changes_nothing_and_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"runtime='TorchEager' and for_speed=0.*above 0"):
        Macs(keep=0.5, runtime='TorchEager')
