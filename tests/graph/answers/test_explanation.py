"""Explanations: what goes with a channel is its unit, tied by operations of the forward pass."""

from __future__ import annotations

import json
import re

import pytest
import torch
from torch import Tensor, nn

import easypruner
from easypruner.analysis.channels import explain_channel
from easypruner.errors import ConfigError
from easypruner.graph import ChannelGraph
from easypruner.graph.answers.connections import TIE
from easypruner.testing import random_masks
from easypruner.testing.networks import Plain, Residual
from tests.graph.answers.test_shares import trace_block
from tests.helpers.networks import NETWORKS, traced_network


def check_units(graph: ChannelGraph) -> None:
    """Compare the explanation of the first channel of some units with the members of groups."""
    modules = {path for path, _ in graph.model.named_modules()}
    for group in graph.groups.values():
        for unit in {0, group.size // 2, group.size - 1}:
            members = {(m.param, m.dim): m.index[unit].tolist() for m in group.members}
            for (param, dim), indices in (*members.items(),)[:: max(len(members) - 1, 1)]:
                found = graph.explain(param, dim, indices[0])
                assert (found.group, found.unit, found.units) == (group.name, unit, group.size)
                tied = {(each.param, each.dim): list(each.indices) for each in found.tied}
                assert tied == members
            reads = {(each.param, each.dim): each.reads for each in found.tied}
            assert reads == {(m.param, m.dim): m.role == 'in' for m in group.members}
            for operation in {name for each in found.tied for name in each.operations} - {TIE}:
                path = operation.partition(' in ')[2]
                assert path in modules or path == 'the model itself'


@pytest.mark.parametrize('build', NETWORKS)
def test_what_goes_together_is_a_unit(build: type[nn.Module]) -> None:
    graph = traced_network(build)
    check_units(graph)
    for seed in (0, 1):  # indices are those of the network as it is
        easypruner.prune(graph.model, random_masks(graph, 0.7, seed), graph=graph)
        check_units(graph)


def test_heads_go_as_a_whole() -> None:
    check_units(trace_block(attention='heads'))


@pytest.mark.parametrize('build', [Plain, Residual])
def test_what_stays_has_its_reason(build: type[nn.Module]) -> None:
    graph = traced_network(build)
    for entry in graph.frozen:
        found = graph.explain(entry.param, entry.dim, 0)
        assert (found.reason, found.kind, found.group) == (entry.reason, entry.kind, None)
        assert entry.reason in str(found)
    head = graph.explain('head.weight', 0, 2)
    assert {each.name for each in head.tied} == {'head.weight[2]', 'head.bias[2]'}


def test_the_operations_are_those_on_the_way() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c, self.d = (nn.Conv2d(3, 3, 1) for _ in range(4))

        def forward(self, x: Tensor) -> Tensor:
            return self.d((self.a(x) + self.b(x)) * self.c(x))

    graph = easypruner.trace(Net(), torch.rand(1, 3, 4, 4))
    found = explain_channel(graph, 'a[1]')
    operations = {each.name: each.operations for each in found.tied}
    assert operations['a.weight[1]'] == ('convolution in a',)
    assert operations['b.weight[1]'] == ('add in the model itself', 'convolution in b')
    assert operations['c.bias[1]'][-2:] == ('mul in the model itself', 'convolution in c')
    assert operations['d.weight[:, 1]'][-1] == 'convolution in d'
    ignored = easypruner.trace(graph.model, graph.example_inputs, ignore=['b'])
    assert ignored.explain('a.weight', 0, 1).held_by == ('add in the model itself',)


def test_as_text_and_as_json() -> None:
    found = explain_channel(traced_network(Residual), 'stem.0[3]')
    content = json.loads(json.dumps(found.to_json()))
    assert content['group'] == found.group and len(content['tied']) == len(found.tied)
    lines = str(found).splitlines()
    assert lines[0].startswith(f'{found.param}[3] is unit {found.unit} of {found.units} in group')
    assert [re.match(r'  (\S+)', line)[1] for line in lines[1:] if ':,' not in line] == [  # type: ignore[index]
        each.name for each in found.tied if each.dim == 0
    ]


@pytest.mark.parametrize(
    ('channel', 'message'),
    [
        ('body.0.0', 'expected a module or a parameter with an index'),
        ('body.0.0[x]', 'expected a module or a parameter with an index'),
        ('hed[1]', "there is no module or parameter 'hed'; did you mean 'head'"),
        ('body[1]', 'has no parameters of its own; it has the parts'),
        ('body.0.0[999]', "dimension 0 of 'body.0.0.weight' has no index 999; expected 0 to"),
        ('body.0.0[:, 1]', 'name one of its parameters'),
        ('head.bias[:, 1]', "'head.bias' has no dimension 1"),
    ],
)
def test_mistakes(channel: str, message: str) -> None:
    graph = traced_network(Plain)
    with pytest.raises(ConfigError, match=re.escape(message)):
        explain_channel(graph, channel)
    with pytest.raises(ConfigError, match='there is no parameter or buffer'):
        graph.explain('body.0.0', 0, 1)
