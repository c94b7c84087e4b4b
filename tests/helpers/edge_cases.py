"""Edge cases that every mask source that reads data must handle."""

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
        check_equal_units,
        check_nan_weights,
        check_single_unit,
        check_empty_data_set,
        check_extreme_budgets,
        check_missing_budget,
        check_missing_context,
        check_unchanged_model,
        check_same_seed,
    ):
        check(make)


def check_equal_units(make: Make) -> None:
    model, graph = _network()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(0.1)
    masks = make(Ratio(keep=0.5)).select(graph, tiny_context())
    assert sum(masks.kept(name) for name in masks) == 10


def check_nan_weights(make: Make) -> None:
    model, graph = _network()
    with torch.no_grad():
        model.body[0][0].weight[2, 1] = float('nan')
    with pytest.raises(EasyPrunerError, match=r"group 'body\.0\.0'"):
        make(Ratio(keep=0.5)).select(graph, tiny_context())


def check_single_unit(make: Make) -> None:
    model, graph = _network()
    single = Masks({'body.0.0': torch.arange(8) == 5})
    easypruner.prune(model, single, graph=graph)
    masks = make(Macs(keep=0.5)).select(graph, tiny_context())
    assert masks.kept('body.0.0') == 1
    assert graph.cost(masks).macs <= 0.5 * graph.cost().macs


def check_empty_data_set(make: Make) -> None:
    _, graph = _network()
    with pytest.raises(EasyPrunerError, match='the data set is empty'):
        make(Ratio(keep=0.5)).select(graph, tiny_context(batches=0))


def check_extreme_budgets(make: Make) -> None:
    _, graph = _network()
    context = tiny_context()
    with pytest.raises(BudgetError, match='lowest possible'):
        make(Macs(keep=0)).select(graph, context)
    least = make(Ratio(keep=0, scope='layer')).select(graph, context)
    assert {least.kept(name) for name in least} == {1} and set(least) == set(graph.groups)
    assert make(Macs(keep=1)).select(graph, context).removed_units == 0


def check_missing_budget(make: Make) -> None:
    _, graph = _network()
    with pytest.raises(ConfigError, match='needs a budget'):
        make(None).select(graph, tiny_context())
    with pytest.raises(ConfigError, match='needs a budget'):
        make(None).dry_run(graph, tiny_context())


def check_missing_context(make: Make) -> None:
    _, graph = _network()
    with pytest.raises(ConfigError, match='needs '):
        make(Ratio(keep=0.5)).select(graph, Context())


def check_unchanged_model(make: Make) -> None:
    model, graph = _network()
    model.train()
    model.body[1].eval()
    modes = [module.training for module in model.modules()]
    before = {name: t.clone() for name, t in model.state_dict().items()}
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    make(Macs(keep=0.5)).select(graph, shuffled_batches(tiny_context()))
    assert torch.equal(torch.rand(4), expected), 'the random state has changed'
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert all(p.grad is None for p in model.parameters())


def check_same_seed(make: Make) -> None:
    _, graph = _network()
    torch.manual_seed(1)
    first = make(Macs(keep=0.5)).select(graph, shuffled_batches(tiny_context()))
    torch.manual_seed(2)
    assert make(Macs(keep=0.5)).select(graph, shuffled_batches(tiny_context())) == first


def _network() -> tuple[nn.Module, ChannelGraph]:
    model = randomized_network(Plain)
    return model, easypruner.trace(model, example_inputs())
