"""The drawing as SVG."""

from __future__ import annotations

from itertools import pairwise
from xml.etree import ElementTree

import pytest
from torch import nn

from easypruner.analysis.svg import svg
from easypruner.analysis.wiring import wire
from easypruner.testing.networks import Dense, Plain, Residual
from tests.helpers.networks import NASTY, NETWORKS, Nasty, Normed, traced_network

SVG = '{http://www.w3.org/2000/svg}'


class TestSvg:
    def read(self, build: type[nn.Module]) -> ElementTree.Element:
        return ElementTree.fromstring(svg(wire(traced_network(build)), 'a title'))

    @pytest.mark.parametrize('build', [*NETWORKS, Normed])
    def test_a_row_for_each_layer_and_a_mark_for_each_part(self, build: type[nn.Module]) -> None:
        wiring = wire(traced_network(build))
        root = ElementTree.fromstring(svg(wiring, 'a title'))
        texts = [element.text for element in root.iter(f'{SVG}text')]
        rows = [float(e.get('y')) for e in root.iter(f'{SVG}text') if e.text in
                {layer.path for layer in wiring.layers}]  # fmt: skip
        assert rows == sorted(set(rows)) and len(rows) == len(wiring.layers)
        assert 'a title' in texts
        lines = [g for g in root.iter(f'{SVG}g') if g.find(f'{SVG}line') is not None]
        assert len(lines) == len(wiring.threads)
        for line, thread in zip(lines, wiring.threads, strict=True):
            marks = list(line.iter(f'{SVG}circle'))
            assert len(marks) == sum(map(len, thread.parts.values()))
            assert len({mark.get('cy') for mark in marks}) == len(thread.parts)

    def test_everything_lies_within_the_picture(self) -> None:
        root = self.read(Dense)
        width, height = float(root.get('width')), float(root.get('height'))
        for element in root.iter():
            x = float(element.get('x', element.get('cx', element.get('x1', '0'))))
            y = float(element.get('y', element.get('cy', element.get('y2', '0'))))
            assert 0 <= x < width and 0 <= y < height

    @pytest.mark.parametrize('build', [Plain, Residual, Dense])
    def test_lines_of_two_groups_never_meet(self, build: type[nn.Module]) -> None:
        spans: dict[str, list[tuple[float, float]]] = {}
        for line in self.read(build).iter(f'{SVG}line'):
            assert line.get('x1') == line.get('x2')
            span = float(line.get('y1')), float(line.get('y2'))
            spans.setdefault(line.get('x1'), []).append(span)
        for lane in spans.values():
            lane.sort()
            assert all(a[1] < b[0] for a, b in pairwise(lane))

    def test_names_are_escaped(self) -> None:
        root = self.read(Nasty)
        shown = NASTY.replace('\x1b', '\\x1b')
        assert shown in [element.text for element in root.iter(f'{SVG}text')]
