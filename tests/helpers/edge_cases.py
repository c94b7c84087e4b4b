"""Hard cases that every mask source which looks at data has to stand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from easypruner_plugins.macs import Macs
from easypruner_plugins.ratio import Ratio
from torch import nn

import easypruner
from easypruner import Budget, Context, Masks, MaskSource
from easypruner.errors import BudgetError, ConfigError, EasyPrunerError
from easypruner.graph import ChannelGraph
from easypruner.testing import example_inputs, randomized_network, tiny_context
from easypruner.testing.networks import Plain
from tests.helpers.batches import shuffled_batches

Make = Callable[[Budget | None], MaskSource]


def check_edge_cases(make: Make) -> None:
    """Run all cases; one that fails names itself in the traceback.

    Args:
        make: builds the source for a budget.
    """
    for check in (
        equal_units, numbers_that_are_none, one_unit, empty_data, budgets_at_the_ends, no_budget,
        what_is_absent, the_model_is_left_alone, same_seed,
    ):  # fmt: skip
        check(make)


def equal_units(make: Make) -> None:
    model, graph = _network()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(0.1)
    masks = make(Ratio(keep=0.5)).select(graph, tiny_context())
    assert sum(masks.kept(name) for name in masks) == 10


def numbers_that_are_none(make: Make) -> None:
    model, graph = _network()
    with torch.no_grad():
        model.body[0][0].weight[2, 1] = float('nan')
    with pytest.raises(EasyPrunerError, match=r"group 'body\.0\.0'"):
        make(Ratio(keep=0.5)).select(graph, tiny_context())


def one_unit(make: Make) -> None:
    model, graph = _network()
    single = Masks({'body.0.0': torch.arange(8) == 5})
    easypruner.prune(model, single, graph=graph)
    masks = make(Macs(keep=0.5)).select(graph, tiny_context())
    assert masks.kept('body.0.0') == 1
    assert graph.cost(masks).macs <= 0.5 * graph.cost().macs


def empty_data(make: Make) -> None:
    _, graph = _network()
    with pytest.raises(EasyPrunerError, match='the data set is empty'):
        make(Ratio(keep=0.5)).select(graph, tiny_context(batches=0))


def budgets_at_the_ends(make: Make) -> None:
    _, graph = _network()
    context = tiny_context()
    with pytest.raises(BudgetError, match='that can be had'):
        make(Macs(keep=0)).select(graph, context)
    least = make(Ratio(keep=0, scope='layer')).select(graph, context)
    assert {least.kept(name) for name in least} == {1} and set(least) == set(graph.groups)
    assert make(Macs(keep=1)).select(graph, context).removed_units == 0


def no_budget(make: Make) -> None:
    _, graph = _network()
    with pytest.raises(ConfigError, match='needs a budget'):
        make(None).select(graph, tiny_context())
    with pytest.raises(ConfigError, match='needs a budget'):
        make(None).dry_run(graph, tiny_context())


def what_is_absent(make: Make) -> None:
    _, graph = _network()
    with pytest.raises(ConfigError, match='needs '):
        make(Ratio(keep=0.5)).select(graph, Context())


def the_model_is_left_alone(make: Make) -> None:
    model, graph = _network()
    model.train()
    model.body[1].eval()
    modes = [module.training for module in model.modules()]
    before = {name: t.clone() for name, t in model.state_dict().items()}
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    make(Macs(keep=0.5)).select(graph, shuffled_batches(tiny_context()))
    assert torch.equal(torch.rand(4), expected), 'chance has moved on'
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert all(p.grad is None for p in model.parameters())


def same_seed(make: Make) -> None:
    _, graph = _network()
    torch.manual_seed(1)
    first = make(Macs(keep=0.5)).select(graph, shuffled_batches(tiny_context()))
    torch.manual_seed(2)
    assert make(Macs(keep=0.5)).select(graph, shuffled_batches(tiny_context())) == first


def _network() -> tuple[nn.Module, ChannelGraph]:
    model = randomized_network(Plain)
    return model, easypruner.trace(model, example_inputs())
