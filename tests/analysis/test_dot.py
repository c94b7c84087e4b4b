"""The drawing for Graphviz."""

from __future__ import annotations

import re
from collections import Counter

from easypruner.analysis.dot import dot
from easypruner.analysis.wiring import wire
from easypruner.testing.networks import Residual
from tests.helpers.networks import NASTY, Nasty, Normed, traced_network


class TestDot:
    STATEMENT = re.compile(r'  n(\d+)(?: -> n(\d+))? \[((?:[^"\]]|"(?:[^"\\]|\\.)*")*)\];')
    QUOTED = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')

    def read(self, text: str) -> tuple[list[dict[str, str]], Counter[tuple[int, int]]]:
        """Return attributes of the nodes in order, and the edges."""
        nodes, edges = [], Counter()
        lines = text.splitlines()
        assert lines[0] == 'digraph network {' and lines[-1] == '}'
        for line in lines[3:-1]:
            found = self.STATEMENT.fullmatch(line)
            assert found, line
            if found[2] is None:
                assert int(found[1]) == len(nodes)
                nodes.append(dict(self.QUOTED.findall(found[3])))
            else:
                edges[int(found[1]), int(found[2])] += 1
        return nodes, edges

    def test_makers_are_joined_with_readers(self) -> None:
        graph = traced_network(Residual)
        nodes, edges = self.read(dot(wire(graph), 'residual'))
        names = [node['label'].split('\\n')[0] for node in nodes]
        assert names == [
            'stem.0',
            'stem.1',
            'branch.0.0',
            'branch.0.1',
            'branch.1',
            'branch.2',
            'head',
        ]
        assert edges == Counter([(0, 1), (0, 2), (0, 6), (2, 3), (2, 4), (4, 5), (4, 6)])

    def test_frozen_layers_show_the_reason(self) -> None:
        nodes, _ = self.read(dot(wire(traced_network(Normed)), 'normed'))
        tips = {node['label'].split('\\n')[0]: node['tooltip'] for node in nodes}
        assert tips['spare'].startswith('frozen: not used')
        assert tips['norm'] == 'group first'

    def test_names_are_escaped(self) -> None:
        nodes, edges = self.read(dot(wire(traced_network(Nasty)), NASTY))
        assert nodes[0]['label'] == (r'a\"b<i>&amp;amp;\\N\\x1b [red]\nLinear 8 x 3')
        assert edges == Counter([(0, 1)])
