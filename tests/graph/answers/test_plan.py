"""Plans say what a cut does: the shapes and costs are those of the network that it leaves."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from torch import nn

import easypruner
from easypruner.errors import CutError, MaskError
from easypruner.testing import example_inputs, random_masks
from easypruner.testing.networks import Grouped, Plain
from tests.graph.answers.test_shares import trace_block
from tests.helpers.networks import NETWORKS, traced_network


@pytest.mark.parametrize('build', NETWORKS)
def test_it_is_the_cut_that_is_made(build: type[nn.Module]) -> None:
    graph = traced_network(build)
    before = {name: tuple(t.shape) for name, t in graph.model.state_dict().items()}
    plan = graph.plan(random_masks(graph))
    assert {name: tuple(t.shape) for name, t in graph.model.state_dict().items()} == before
    plan.apply()
    after = {name: tuple(t.shape) for name, t in graph.model.state_dict().items()}
    names = dict(graph.model.named_parameters()).keys() | dict(graph.model.named_buffers()).keys()
    changed = {n: (before[n], after[n]) for n in names if before[n] != after[n]}
    planned = {
        f'{layer.path}.{name}': shapes
        for layer in plan.layers
        for name, shapes in layer.shapes.items()
    }
    assert planned == changed
    again = easypruner.trace(graph.model, example_inputs())
    assert plan.after == again.cost()
    costs = again.layer_costs()
    assert all(layer.after == costs[layer.path] for layer in plan.layers)
    kept = {group.name: group.after for group in plan.groups}
    assert kept == {name: graph.groups[name].size for name in kept}


def test_what_is_left_alone_has_its_reason() -> None:
    graph = traced_network(Plain, limits=dict(round_to=4))
    first, second, *_ = graph.groups
    masks = {first: torch.arange(graph.groups[first].size) > 0}
    plan = graph.plan({**masks, second: torch.ones(graph.groups[second].size).bool()})
    reasons = {entry.what: entry.reason for entry in plan.left_alone}
    assert reasons[f'group {second!r}'] == 'its mask keeps all units'
    assert reasons['outputs'] == 'an output of the model (output)'
    assert graph.plan(masks).left_alone[0].reason == 'there is no mask for it'
    assert 'its limits allow' in str(plan) and plan.groups[0].problem is not None
    content = json.loads(json.dumps(plan.to_json()))
    assert content['masks'][first] == list(range(1, graph.groups[first].size))
    assert content['after']['macs'] == plan.after.macs


def test_the_numbers_in_the_code_are_listed() -> None:
    graph = trace_block()
    plan = graph.plan(random_masks(graph))
    assert [number for number in plan.numbers if number.startswith('width: 8 -> ')]
    assert plan.numbers[0] in str(plan)


def test_optimizers_are_cut_as_well() -> None:
    graph = traced_network(Plain)
    optimizer = torch.optim.SGD(graph.model.parameters(), lr=0.1, momentum=0.9)
    graph.model(example_inputs()).sum().backward()
    optimizer.step()
    graph.plan(random_masks(graph)).apply(optimizer=optimizer)
    for parameter in graph.model.parameters():
        assert optimizer.state[parameter]['momentum_buffer'].shape == parameter.shape


def test_a_plan_is_of_the_network_as_it_was() -> None:
    graph = traced_network(Plain)
    plan = graph.plan(random_masks(graph))
    plan.apply()
    with pytest.raises(CutError, match='was cut after the plan was made'):
        plan.apply()


class TestMasksThatDoNotFit:
    def test_those_of_another_option(self) -> None:
        graph, other = trace_block(), trace_block(attention='heads')
        masks, inputs = random_masks(other), torch.randn(2, 6, 5)
        advice = "they fit a trace with attention='heads'"
        for call in (graph.plan, graph.cost, lambda m: easypruner.verify(other.model, m, inputs)):
            with pytest.raises(MaskError, match=advice):
                call(masks)
        assert easypruner.verify(other.model, masks, inputs, attention='heads').passed
        with pytest.raises(easypruner.errors.ConfigError, match='got graph= and attention='):
            easypruner.verify(other.model, masks, inputs, graph=other, attention='heads')

    def test_those_of_whole_groups_of_convolutions(self) -> None:
        graph, other = traced_network(Grouped), traced_network(Grouped, grouped='whole')
        masks = random_masks(other)
        with pytest.raises(MaskError, match="they fit a trace with grouped='whole'"):
            graph.plan(masks)
        assert easypruner.verify(other.model, masks, example_inputs(), grouped='whole').passed

    def test_those_of_the_network_before_a_cut(self) -> None:
        graph = traced_network(Plain)
        masks = random_masks(graph)
        easypruner.prune(graph.model, masks, graph=graph)
        with pytest.raises(MaskError, match='they fit the network before it was cut'):
            graph.plan(masks)

    def test_those_of_layers_that_stay(self) -> None:
        graph = traced_network(Plain)
        masks = random_masks(graph)
        (name, *_) = masks
        ignored = easypruner.trace(copy.deepcopy(graph.model), example_inputs(), ignore=[name])
        with pytest.raises(MaskError, match='its channels stay: ignored, as'):
            ignored.plan(masks)

    def test_others_get_no_advice(self) -> None:
        graph = traced_network(Plain)
        (name, *_) = graph.groups
        with pytest.raises(MaskError, match=r'one for each unit$'):
            graph.plan({name: torch.ones(999).bool()})
