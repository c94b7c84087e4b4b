"""The checks for plugins pass good components and catch bad ones."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import easypruner
from easypruner import Budget, Context, Masks, MaskSource, Progress, Regularizer
from easypruner.errors import BudgetError, EasyPrunerError
from easypruner.graph import ChannelGraph
from easypruner.plugins import load_plugins
from easypruner.plugins.registry import BUDGETS, MASK_SOURCES, ComponentRegistry, build
from easypruner.strategies.budgets.costs import CostBudget
from easypruner.strategies.budgets.ranking import within_limits
from easypruner.testing import (
    check_budget,
    check_forward_penalty,
    check_gradient,
    check_source,
    example_budget,
    network,
)

load_plugins()


def built(registry: ComponentRegistry, cls: type[Any], folder: Path) -> Any:
    """Return a component with the arguments that it names for tests."""
    tiny = network('residual')
    arguments = cls.example(easypruner.trace(tiny.make(), tiny.inputs()), folder)
    return build(registry, {'type': cls, **arguments})


@pytest.mark.parametrize('name', MASK_SOURCES.classes)
def test_every_built_in_source_passes(name: str, tmp_path: Path) -> None:
    source = built(MASK_SOURCES, MASK_SOURCES.classes[name], tmp_path)
    if source.takes_budget():
        source.budget = example_budget()
    check_source(source)


@pytest.mark.parametrize('name', BUDGETS.classes)
def test_every_built_in_budget_passes(name: str, tmp_path: Path) -> None:
    check_budget(built(BUDGETS, BUDGETS.classes[name], tmp_path))


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


class _Graded(_Source):
    def score(self, graph: ChannelGraph, context: Context) -> dict[str, Tensor]:
        graph.model(torch.zeros(network('plain').shape)).sum().backward()
        return super().score(graph, context)


class _Hooked(_Source):
    def score(self, graph: ChannelGraph, context: Context) -> dict[str, Tensor]:
        graph.model.get_submodule('body.0').register_forward_hook(print)
        return super().score(graph, context)


class _Frozen(_Source):
    def score(self, graph: ChannelGraph, context: Context) -> dict[str, Tensor]:
        graph.model.requires_grad_(False)
        return super().score(graph, context)


class _Damaged(_Source):
    def score(self, graph: ChannelGraph, context: Context) -> dict[str, Tensor]:
        return {n: torch.log(-score) for n, score in super().score(graph, context).items()}


class _Deep(_Source):
    def score(self, graph: ChannelGraph, context: Context) -> dict[str, Tensor]:
        return {n: score[None, None] for n, score in super().score(graph, context).items()}


class _DeepMasks(MaskSource):
    def select(self, graph: ChannelGraph, context: Context) -> Masks:
        return Masks({n: torch.ones(1, g.size).bool() for n, g in graph.groups.items()})


class _NoMasks(MaskSource):
    def select(self, graph: ChannelGraph, context: Context) -> Any:
        return {n: torch.ones(g.size).bool() for n, g in graph.groups.items()}


class _Picky(_Source):
    """Refuses networks with more than two groups, or with other groups than its masks name."""

    def score(self, graph: ChannelGraph, context: Context) -> dict[str, Tensor]:
        Masks({'body.0.0': torch.ones(8).bool()}).check(graph)
        if len(graph.groups) > 2:
            raise EasyPrunerError('too many groups')
        return super().score(graph, context)


def test_a_good_source_passes() -> None:
    check_source(_Source(example_budget()))
    check_source(_Picky(example_budget()))


@pytest.mark.parametrize(
    ('source', 'words'),
    [
        (_Graded, 'plain: gradient of .* is set; expected missing'),
        (_Hooked, "plain: number of forward hooks on 'body.0' is 3; expected 0"),
        (_Frozen, 'plain: requires_grad of .* is False'),
        (_Damaged, r"plain: 7 scores of group 'body\.0\.0' are NaN"),
        (_Deep, r'^plain: _Deep\.score\(\) returned a float32 tensor of shape \(1, 1, 8\)'),
        (_DeepMasks, r'^plain: the mask of group .* shape \(1, 8\)'),
        (_NoMasks, r'^plain: _NoMasks\.select\(\) returned a dict'),
        (_Changing, 'has changed'),
        (_Fickle, 'a second call selects other masks'),
        (_Training, 'training mode'),
        (_Emptying, 'plain: .* removes all'),
        (_Refusing, "refuses all networks: .'plain: not today'"),
    ],
)
def test_a_bad_source_is_caught(source: type[MaskSource], words: str) -> None:
    with pytest.raises(AssertionError, match=words):
        check_source(source(example_budget()))


def test_a_single_network_may_be_tried() -> None:
    check_source(_Source(example_budget()), network('plain'))
    check_budget(_Half(), network('plain'))
    check_gradient(_Squares(0.1), _squares, network('plain'))
    for networks, words in (('plain', "'p' is not a tiny network"), ([], 'got no network')):
        with pytest.raises(EasyPrunerError, match=words):
            check_source(_Source(example_budget()), networks)  # type: ignore[arg-type]


class _Half(Budget):
    """Keeps half of each group within its limits; ``asked`` can claim less."""

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
    with pytest.raises(AssertionError, match=r'_Half: delivered 0\.\d+, but the limit is 0\.1'):
        check_budget(_Half(claim=0.1))


class _Limitless(_Half):
    """Keeps one unit of each group and ignores the limits on groups."""

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


class _Random(_Half):
    """Keeps half of each group and ignores the scores."""

    def __call__(
        self, scores: Mapping[str, Tensor], graph: ChannelGraph, context: Context
    ) -> Masks:
        return super().__call__({n: torch.rand(s.shape) for n, s in scores.items()}, graph, context)


class _Idle(_Half):
    """Keeps everything, and reports half."""

    def __call__(
        self, scores: Mapping[str, Tensor], graph: ChannelGraph, context: Context
    ) -> Masks:
        return Masks({n: torch.ones_like(s, dtype=torch.bool) for n, s in scores.items()})

    def delivered(self, masks: Masks, graph: ChannelGraph) -> float:
        return 0.5


class _Plainly(_Half):
    def __call__(self, scores: Mapping[str, Tensor], graph: ChannelGraph, context: Context) -> Any:
        return dict(super().__call__(scores, graph, context))


class _Params(CostBudget):
    """Counts parameters, but reports a quarter less."""

    unit = 'params'

    def __init__(self, keep: float | None = 0.5, limit: float | None = None) -> None:
        super().__init__(keep, limit)

    def cost(self, graph: ChannelGraph, masks: Mapping[str, Tensor] | None) -> float:
        params = graph.cost(masks).params
        return 0.75 * params if masks is None else params - 0.25 * graph.cost().params


class _Few(_Params):
    def __init__(self) -> None:
        super().__init__(None, 300)


@pytest.mark.parametrize(
    ('budget', 'words'),
    [
        (
            _Random,
            r"plain: in group 'body\.0\.0' a unit with score 0\.\d+ is kept, and one with 0\.\d+",
        ),
        (_Idle, '_Idle removes no units of any network; check it with a lower limit'),
        (_Plainly, r'plain: got a dict \{.*, expected easypruner\.Masks'),
        (_Params, r'plain: _Params reports 0\.\d+, but the graph has 0\.\d+'),
        (_Few, r'plain: _Few reports \d+\.\d+, but the graph has \d+'),
        (
            _Limitless,
            r"plain: 1 units of group 'body\.0\.0' are kept, but its limits allow \(2, 4, 6, 8\)",
        ),
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
    with pytest.raises(AssertionError, match=r'plain, body\.0\.0\.weight'):
        check_gradient(_Squares(0.1, fault=1.01), _squares)
    with pytest.raises(AssertionError, match=r'plain without masks, body\.0\.0\.weight'):
        check_gradient(_Squares(0.1, fault_unmasked=1.01), _squares)


def test_a_wrong_gradient_is_reported_by_its_largest_difference() -> None:
    class Off(_Squares):
        def add_gradient(self, graph: ChannelGraph, masks: Masks | None, *rest: Any) -> None:
            super().add_gradient(graph, masks, *rest)
            grad = graph.parameter('body.0.0.weight').grad
            assert grad is not None
            grad[3, 1, 2, 0] += 7

    with pytest.raises(AssertionError) as raised:
        check_gradient(Off(0.1), _squares)
    message = str(raised.value)
    assert message.startswith('plain, body.0.0.weight: ')
    assert 'at (3, 1, 2, 0), but that of the formula is' in message
    assert len(message) < 200


def test_a_regularizer_that_changes_more_than_gradients_is_caught() -> None:
    class Pulling(_Squares):
        def penalty(self, graph: ChannelGraph, masks: Masks | None) -> Tensor:
            with torch.no_grad():
                graph.parameter('body.0.1.running_mean').mul_(0.9)
            return super().penalty(graph, masks)

    with pytest.raises(AssertionError, match=r'plain: body\.0\.1\.running_mean has changed'):
        check_gradient(Pulling(0.1), _squares)

    class Dropping(_Squares):
        def add_gradient(self, graph: ChannelGraph, *rest: Any) -> None:
            graph.model.zero_grad()

    with pytest.raises(AssertionError, match=r'plain, .*: the gradient was removed'):
        check_gradient(Dropping(0.1), _squares)


def test_a_regularizer_that_needs_masks_passes() -> None:
    def formula(graph: ChannelGraph, masks: Masks | None) -> Tensor:
        assert masks is not None
        return _squares(graph, masks)

    check_gradient(_Masked(0.1), formula)
    with pytest.raises(AssertionError, match=r'plain, body\.0\.0\.weight'):
        check_gradient(_Masked(0.1, fault=1.01), formula)


def test_a_regularizer_that_refuses_all_is_caught() -> None:
    with pytest.raises(AssertionError, match='refuses all networks'):
        check_gradient(_Unusable(0.1), _squares)


class _Watching(Regularizer):
    """Penalizes the squares that the first block of 'plain' computes; ``fault`` names a fault."""

    def __init__(self, fault: str = '') -> None:
        super().__init__(0.5)
        self.fault = fault
        self.values: list[Tensor] = []

    @contextlib.contextmanager
    def watching(self, graph: ChannelGraph, masks: Masks | None) -> Iterator[None]:
        hook = graph.model.get_submodule('body.0').register_forward_hook(self.add)
        yield
        if self.fault != 'hook':
            hook.remove()

    def add(self, module: torch.nn.Module, args: object, output: Tensor) -> None:
        if torch.is_grad_enabled() or self.fault == 'validation':
            self.values.append(output.square().mean())

    def forward_penalty(self, progress: Progress) -> Tensor | None:
        values, self.values = self.values, []
        penalty = self.strength * torch.stack(values).sum()
        if self.fault == 'gradient':
            return penalty.detach() + 0 * penalty
        return None if self.fault == 'none' else penalty


def _first_squares(graph: ChannelGraph, masks: Masks | None, inputs: Tensor) -> Tensor:
    first = graph.model.get_submodule('body.0')
    return 0.5 * first(inputs).square().mean()


@pytest.mark.parametrize(
    ('fault', 'words'),
    [
        ('hook', r"plain: number of forward hooks on 'body\.0' is 1; expected 0"),
        ('validation', 'plain: got a penalty of .*, but the formula is'),
        ('none', 'plain: got a penalty of 0, but the formula is'),
        ('gradient', r'plain, body\.0\.0\.weight: got a gradient of 0'),
    ],
)
def test_a_wrong_penalty_on_forward_passes_is_caught(fault: str, words: str) -> None:
    check_forward_penalty(_Watching(), _first_squares, network('plain'))
    with pytest.raises(AssertionError, match=words):
        check_forward_penalty(_Watching(fault), _first_squares, network('plain'))


def test_each_kind_of_penalty_has_its_check() -> None:
    with pytest.raises(AssertionError, match=r'check it with check_forward_penalty\(\)'):
        check_gradient(_Watching(), _squares)
    with pytest.raises(AssertionError, match=r'check its gradient with check_gradient\(\)'):
        check_forward_penalty(_Squares(0.1), _first_squares)
