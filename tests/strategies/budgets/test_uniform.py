"""Uniform widths: layers of a kind keep the same number of units, whatever the budget is."""

from __future__ import annotations

import pytest
import torch
from easypruner_plugins.group_threshold import GroupThreshold
from easypruner_plugins.lp_norm import L1Norm
from easypruner_plugins.macs import Macs
from easypruner_plugins.optimal_threshold import OptimalThreshold
from easypruner_plugins.params import Params
from easypruner_plugins.ratio import Ratio
from easypruner_plugins.threshold import Threshold
from torch import Tensor, nn

import easypruner
from easypruner import Budget, Context, Limits
from easypruner.errors import ConfigError
from easypruner.graph import ChannelGraph
from easypruner.strategies.scores import Scores


class Block(nn.Module):
    def __init__(self, scale: float) -> None:
        super().__init__()
        self.up = nn.Linear(12, 16)
        self.down = nn.Linear(16, 12)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(self.up(x).relu() * self.scale)


class Stack(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(4, 12)
        self.blocks = nn.ModuleList([Block(1.0), Block(2.0), Block(3.0)])
        self.head = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


MLPS = [f'blocks.{number}.up' for number in range(3)]


def traced(**options: object) -> ChannelGraph:
    torch.manual_seed(0)
    return easypruner.trace(Stack(), torch.randn(2, 4), **options)  # type: ignore[arg-type]


def drawn(graph: ChannelGraph) -> Scores:
    """Return scores that differ much between the layers."""
    torch.manual_seed(1)
    return Scores({name: torch.rand(g.size) * (1 + g.number) for name, g in graph.groups.items()})


BUDGETS = {
    'macs': lambda: Macs(keep=0.55),
    'both': lambda: L1Norm([Macs(keep=0.6), Params(keep=0.5)]).needed_budget(),
    'ratio': lambda: Ratio(keep=0.5),
    'patterns': lambda: Ratio(keep={'blocks.0.up': 0.25, 'blocks.1.up': 0.5, '*': 0.75}),
    'threshold': lambda: Threshold(0.9),
    'some': lambda: GroupThreshold({'blocks.0.up': 0.9, 'stem': 0.5}),
    'energy': lambda: OptimalThreshold(0.2),
    'part': lambda: Macs(keep=0.2).partial(0.0, 0.9),
}


@pytest.mark.parametrize('kind', BUDGETS)
def test_every_budget_keeps_the_same_width_in_layers_of_a_kind(kind: str) -> None:
    graph, budget = traced(uniform=True), BUDGETS[kind]()
    scores = drawn(graph)
    masks = budget(scores, graph, Context())
    widths = {masks.kept(name) if name in masks else 16 for name in MLPS}
    assert len(widths) == 1
    if kind != 'some':  # of a kind of which one layer has no threshold, all stay whole
        assert widths < {*range(16)} and len({tuple(masks[n].tolist()) for n in MLPS}) == 3
    for name in MLPS:
        if name in masks:  # the best of its own scores stay
            assert set(scores[name].topk(masks.kept(name)).indices.tolist()) == set(
                masks[name].nonzero().flatten().tolist()
            )
    free = BUDGETS[kind]()(scores, traced(), Context())
    assert len({free.kept(name) if name in free else 16 for name in MLPS}) > 1


@pytest.mark.parametrize('keep', [0.3, 0.5, 0.8])
def test_the_limit_is_met_and_no_step_more_would_fit(keep: float) -> None:
    graph, budget = traced(uniform=True), Macs(keep=keep)
    masks = budget(drawn(graph), graph, Context())
    whole = graph.cost().macs
    assert graph.cost(masks).macs <= keep * whole
    wider = {n: torch.arange(16) < masks.kept(n) + 1 for n in MLPS}
    assert masks.kept(MLPS[0]) == 16 or graph.cost({**masks, **wider}).macs > keep * whole


def test_limits_of_a_kind_are_met_by_all_of_its_layers() -> None:
    limits = {
        'blocks.0.up': dict(round_to=4, uniform=True),
        'blocks.1.up': dict(min_units=7, uniform=True),
        'blocks.2.up': dict(uniform=True),
    }
    graph = traced(limits=limits)
    masks = Ratio(keep=0.1, scope='layer')(drawn(graph), graph, Context())
    assert [masks.kept(name) for name in MLPS] == [8, 8, 8]
    assert graph.limits['blocks.2.up'] == Limits(7, 1.0, 4, uniform='blocks.0.up')


def test_names_say_which_groups_are_uniform() -> None:
    limits = {'blocks.1.up': dict(uniform='a'), 'blocks.2.up': dict(uniform='a')}
    graph = traced(limits=limits)
    masks = Macs(keep=0.3)(drawn(graph), graph, Context())
    assert masks.kept('blocks.1.up') == masks.kept('blocks.2.up') != masks.kept('blocks.0.up')
    with pytest.raises(ConfigError, match=r"'stem' has 12 units, and 'blocks.1.up' has 16"):
        traced(limits={'stem': dict(uniform='a'), 'blocks.1.up': dict(uniform='a')})


@pytest.mark.parametrize('wrong', [3, [1], {'blocks.0.up': True}])
def test_what_is_not_a_pattern_is_refused(wrong: object) -> None:
    with pytest.raises(ConfigError, match='uniform'):
        traced(uniform=wrong)
    with pytest.raises(ConfigError, match="uniform=''"):
        Limits(uniform='')


def test_slim_in_several_cuts_stays_uniform() -> None:
    torch.manual_seed(0)
    net = Stack()
    for keep in (0.7, 0.7):
        net = easypruner.slim(net, torch.randn(2, 4), macs=keep, uniform='blocks').model
        assert len({block.up.out_features for block in net.blocks}) == 1  # type: ignore[union-attr]
    assert net.blocks[0].up.out_features < 16  # type: ignore[union-attr,operator]


def test_budgets_of_users_observe_it_as_well() -> None:
    class HalfOfFirst(Budget):
        asked = 0.5

        def __call__(
            self, scores: Scores, graph: ChannelGraph, context: Context
        ) -> easypruner.Masks:
            return easypruner.Masks({MLPS[0]: scores[MLPS[0]] > scores[MLPS[0]].median()})

        def delivered(self, masks: easypruner.Masks, graph: ChannelGraph) -> float:
            return 0.5

    graph = traced(uniform=True)
    masks = HalfOfFirst()(drawn(graph), graph, Context())
    assert [masks.kept(name) for name in MLPS] == [16, 16, 16]
