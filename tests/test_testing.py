"""The checks for plugins let good components pass, and catch bad ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import easypruner
from easypruner import Budget, Context, LayerHandler, Masks, MaskSource, Regularizer, Stage
from easypruner.errors import BudgetError, EasyPrunerError
from easypruner.graph import ChannelGraph
from easypruner.plugins import load_plugins
from easypruner.registry import BUDGETS, MASK_SOURCES, ComponentRegistry, build
from easypruner.testing import (
    NETWORKS,
    TinyNetwork,
    check_budget,
    check_gradient,
    check_handler,
    check_source,
    compose,
    example_budget,
    network,
    random_masks,
    tiny_context,
)
from easypruner.toolkit.ranking import within_limits

load_plugins()


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


def test_a_network_that_there_is_not() -> None:
    with pytest.raises(EasyPrunerError, match="did you mean 'residual'"):
        network('residaul')


def built(registry: ComponentRegistry, cls: type[Any], folder: Path) -> Any:
    """Return a component with the arguments that it names for tests."""
    tiny = network('residual')
    arguments = cls.example(easypruner.trace(tiny.make(), tiny.inputs()), folder)
    return build(registry, {'type': cls, **arguments})


@pytest.mark.parametrize('name', MASK_SOURCES.module_dict)
def test_every_source_there_is_passes(name: str, tmp_path: Path) -> None:
    source = built(MASK_SOURCES, MASK_SOURCES.module_dict[name], tmp_path)
    if source.takes_budget():
        source.budget = example_budget()
    check_source(source)


@pytest.mark.parametrize('name', BUDGETS.module_dict)
def test_every_budget_there_is_passes(name: str, tmp_path: Path) -> None:
    check_budget(built(BUDGETS, BUDGETS.module_dict[name], tmp_path))


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


class _Refusing(MaskSource):
    def select(self, graph: ChannelGraph, context: Context) -> Masks:
        raise EasyPrunerError('not today')


def test_a_good_source_passes() -> None:
    check_source(_Source(example_budget()))


@pytest.mark.parametrize(
    ('source', 'words'),
    [
        (_Changing, 'has changed'),
        (_Fickle, 'another choice'),
        (_Training, 'training mode'),
        (_Emptying, 'plain: .* removes all'),
        (_Refusing, 'refuses all networks'),
    ],
)
def test_a_bad_source_is_caught(source: type[MaskSource], words: str) -> None:
    with pytest.raises(AssertionError, match=words):
        check_source(source(example_budget()))


class _Half(Budget):
    """Keeps half of each group, to within its limits; ``asked`` may claim less."""

    def __init__(self, claim: float = 0.75) -> None:
        self.claim = claim

    def __call__(
        self, scores: Mapping[str, Tensor], graph: ChannelGraph, context: Context
    ) -> Masks:
        halves = {n: s >= s.median() for n, s in scores.items()}
        return within_limits(halves, scores, graph.limits)

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


class _Limitless(_Half):
    """Keeps one unit of each group, whatever the group's limits."""

    def __call__(
        self, scores: Mapping[str, Tensor], graph: ChannelGraph, context: Context
    ) -> Masks:
        return Masks({n: s >= s.max() for n, s in scores.items()})


class _Never(_Half):
    def __call__(
        self, scores: Mapping[str, Tensor], graph: ChannelGraph, context: Context
    ) -> Masks:
        raise BudgetError('never enough')


class _Nothing(_Half):
    def __call__(
        self, scores: Mapping[str, Tensor], graph: ChannelGraph, context: Context
    ) -> Masks:
        return Masks({n: s > s.max() for n, s in scores.items()})


@pytest.mark.parametrize(
    ('budget', 'words'),
    [
        (_Limitless, r"plain: 1 units stay of group '0\.0', whose limits allow \(2, 4, 6, 8\)"),
        (_Never, 'refuses all networks'),
        (_Nothing, 'plain: .* removes all'),
    ],
)
def test_a_bad_budget_is_caught(budget: type[Budget], words: str) -> None:
    with pytest.raises(AssertionError, match=words):
        check_budget(budget())


class _Squares(Regularizer):
    """strength * sum of squares of all parameters, times ``fault`` or ``fault_unmasked``."""

    def __init__(self, strength: float, fault: float = 1.0, fault_unmasked: float = 1.0) -> None:
        super().__init__(strength)
        self.fault, self.fault_unmasked = fault, fault_unmasked

    def penalty(self, graph: ChannelGraph, masks: Masks | None) -> Tensor:
        squares = [p.square().sum() for p in graph.model.parameters()]
        fault = self.fault_unmasked if masks is None else self.fault
        return fault * self.strength * torch.stack(squares).sum()


class _Masked(_Squares):
    """Needs masks."""

    def penalty(self, graph: ChannelGraph, masks: Masks | None) -> Tensor:
        return super().penalty(graph, self.needed_masks(graph, masks))


class _Unusable(_Squares):
    def penalty(self, graph: ChannelGraph, masks: Masks | None) -> Tensor:
        raise EasyPrunerError('not today')


def _squares(graph: ChannelGraph, masks: Masks | None) -> Tensor:
    return 0.1 * sum((p**2).sum() for p in graph.model.parameters())


def test_a_wrong_gradient_is_caught() -> None:
    check_gradient(_Squares(0.1), _squares)
    with pytest.raises(AssertionError, match=r'plain, 0\.0\.weight'):
        check_gradient(_Squares(0.1, fault=1.01), _squares)
    with pytest.raises(AssertionError, match=r'plain without masks, 0\.0\.weight'):
        check_gradient(_Squares(0.1, fault_unmasked=1.01), _squares)


def test_a_regularizer_that_needs_masks_passes() -> None:
    def formula(graph: ChannelGraph, masks: Masks | None) -> Tensor:
        assert masks is not None
        return _squares(graph, masks)

    check_gradient(_Masked(0.1), formula)
    with pytest.raises(AssertionError, match=r'plain, 0\.0\.weight'):
        check_gradient(_Masked(0.1, fault=1.01), formula)


def test_a_regularizer_that_refuses_all_is_caught() -> None:
    with pytest.raises(AssertionError, match='refuses all networks'):
        check_gradient(_Unusable(0.1), _squares)


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


@pytest.mark.parametrize('other', [Stage, LayerHandler])
def test_what_has_no_partners_is_not_composed(other: type[Any]) -> None:
    with pytest.raises(EasyPrunerError, match='check_stage and check_handler'):
        compose(other)


class _NoBudget(_Squares):
    @classmethod
    def example(cls, graph: ChannelGraph, folder: Path) -> Mapping[str, Any]:
        return {'strength': -1.0}


def test_bad_example_arguments_are_told() -> None:
    with pytest.raises(AssertionError, match=r'strength=-1\.0'):
        compose(_NoBudget)
