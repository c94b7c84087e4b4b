"""The checks for plugins let good components pass, and catch bad ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import easypruner
from easypruner import Budget, Context, LayerHandler, Masks, MaskSource, Regularizer
from easypruner.graph import ChannelGraph
from easypruner.testing import (
    NETWORKS,
    TinyNetwork,
    check_budget,
    check_gradient,
    check_handler,
    check_source,
    compose,
    example_budget,
    random_masks,
    tiny_context,
)


@pytest.mark.parametrize('tiny', NETWORKS, ids=lambda tiny: tiny.name)
def test_the_networks_are_prunable_and_alike_each_time(tiny: TinyNetwork) -> None:
    model, again = tiny.make(), tiny.make()
    assert torch.equal(model(tiny.inputs()), again(tiny.inputs()))
    graph = easypruner.trace(model, tiny.inputs())
    masks = random_masks(graph)
    assert masks.removed_units
    assert easypruner.verify(model, masks, tiny.inputs()).passed
    context = tiny_context(tiny)
    (first, *_) = context.some_batches(9, 'the test')
    assert context.needed('loss', 'the test')(model, first).item() > 0
    assert 0 <= context.needed('evaluate', 'the test')(model) <= 100


class _Source(MaskSource):
    """Prefers units at the end of a group."""

    def score(self, graph: ChannelGraph, context: Context) -> dict[str, Tensor]:
        return {name: torch.arange(group.size).float() for name, group in graph.groups.items()}


class _Changing(_Source):
    def score(self, graph: ChannelGraph, context: Context) -> dict[str, Tensor]:
        with torch.no_grad():
            next(graph.model.parameters()).mul_(2)
        return super().score(graph, context)


class _Fickle(_Source):
    def score(self, graph: ChannelGraph, context: Context) -> dict[str, Tensor]:
        return {name: torch.rand(group.size) for name, group in graph.groups.items()}


class _Training(_Source):
    def score(self, graph: ChannelGraph, context: Context) -> dict[str, Tensor]:
        graph.model.train()
        return super().score(graph, context)


class _Emptying(MaskSource):
    def select(self, graph: ChannelGraph, context: Context) -> Masks:
        return Masks({n: torch.zeros(g.size).bool() for n, g in graph.groups.items()})


def test_a_good_source_passes() -> None:
    check_source(_Source(example_budget()))


@pytest.mark.parametrize(
    ('source', 'words'),
    [
        (_Changing, 'has changed'),
        (_Fickle, 'another choice'),
        (_Training, 'training mode'),
        (_Emptying, 'refuses all|removes all'),
    ],
)
def test_a_bad_source_is_caught(source: type[MaskSource], words: str) -> None:
    with pytest.raises((AssertionError, easypruner.errors.MaskError), match=words):
        check_source(source(example_budget()))


class _Half(Budget):
    """Keeps half of each group; ``asked`` may claim less."""

    def __init__(self, claim: float = 0.75) -> None:
        self.claim = claim

    def __call__(
        self, scores: Mapping[str, Tensor], graph: ChannelGraph, context: Context
    ) -> Masks:
        return Masks({n: s >= s.median() for n, s in scores.items()})

    @property
    def asked(self) -> float:
        return self.claim

    def delivered(self, masks: Masks, graph: ChannelGraph) -> float:
        units = sum(mask.numel() for mask in masks.values())
        return 1 - masks.removed_units / units


def test_a_budget_that_is_not_met_is_caught() -> None:
    check_budget(_Half())
    with pytest.raises(AssertionError, match=r'_Half: 0\.\d+ for 0\.1'):
        check_budget(_Half(claim=0.1))


class _Squares(Regularizer):
    """strength * sum of squares of all parameters, times ``fault`` in its gradient."""

    def __init__(self, strength: float, fault: float = 1.0) -> None:
        super().__init__(strength)
        self.fault = fault

    def penalty(self, graph: ChannelGraph, masks: Masks | None) -> Tensor:
        squares = [p.square().sum() for p in graph.model.parameters()]
        return self.fault * self.strength * torch.stack(squares).sum()


def _squares(graph: ChannelGraph, masks: Masks | None) -> Tensor:
    return 0.1 * sum((p**2).sum() for p in graph.model.parameters())


def test_a_wrong_gradient_is_caught() -> None:
    check_gradient(_Squares(0.1), _squares)
    with pytest.raises(AssertionError, match=r'plain, 0\.0\.weight'):
        check_gradient(_Squares(0.1, fault=1.01), _squares)


class _Checked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.channels = 8
        self.scale = nn.Parameter(torch.rand(8))

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[1] == self.channels
        return x * self.scale[:, None, None]


class _Handler(LayerHandler):
    handles = (_Checked,)

    def resize(self, layer: Any, shapes: Mapping[str, torch.Size]) -> None:
        layer.channels = shapes['scale'][0]


def test_a_handler_keeps_its_number() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 1), _Checked(), nn.Conv2d(8, 2, 1))
    modules: Any = check_handler(_Handler(), model, torch.rand(1, 3, 4, 4))
    assert modules['1'].channels == modules['0'].out_channels < 8


def test_a_network_that_cannot_be_cut_is_caught() -> None:
    with pytest.raises(AssertionError, match='nothing of this'):
        check_handler(_Handler(), nn.Sequential(nn.Conv2d(3, 2, 1)), torch.rand(1, 3, 4, 4))


class _Failing(_Source):
    def score(self, graph: ChannelGraph, context: Context) -> dict[str, Tensor]:
        raise RuntimeError('no scores today')


def test_a_composition_that_fails_is_named() -> None:
    with pytest.raises(AssertionError, match=r'_Failing-.*-1: RuntimeError: no scores today'):
        compose(_Failing)
    compose(_Source)


class _NoBudget(_Squares):
    @classmethod
    def example(cls, graph: ChannelGraph, folder: Path) -> Mapping[str, Any]:
        return {'strength': -1.0}


def test_bad_example_arguments_are_told() -> None:
    with pytest.raises(AssertionError, match=r'strength=-1\.0'):
        compose(_NoBudget)
