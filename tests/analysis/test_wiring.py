"""The wiring: the order of the layers, and the readers of each."""

from __future__ import annotations

import pytest
from torch import nn

from easypruner.analysis.wiring import wire
from tests.helpers.networks import NETWORKS, Normed, traced_network


class TestWiring:
    def test_layers_stand_in_the_order_of_the_forward_pass(self) -> None:
        wiring = wire(traced_network(Normed))
        assert [layer.path for layer in wiring.layers] == ['first', 'norm', 'head', 'spare']
        assert [bool(layer.frozen) for layer in wiring.layers] == [False, False, False, True]
        assert 'not used' in wiring.layers[3].frozen
        (thread,) = wiring.threads
        assert thread.parts == {0: ('makes',), 1: ('carries',), 2: ('reads',)}

    @pytest.mark.parametrize('build', NETWORKS)
    def test_every_reader_has_a_maker(self, build: type[nn.Module]) -> None:
        graph = traced_network(build)
        wiring = wire(graph)
        number = {layer.path: n for n, layer in enumerate(wiring.layers)}
        for thread in wiring.threads:
            edges = list(thread.edges())
            assert all(source < target for source, target, _ in edges)
            members = graph.groups[thread.group].members
            readers = {number[m.module] for m in members if m.role == 'in'}
            makers = thread.layers('makes')
            assert makers and set(thread.layers('reads')) == readers
            joined = {target for _, target, part in edges if part == 'reads'}
            assert joined == {reader for reader in readers if reader > makers[0]}
