"""Looking at a network: the summary, the pictures, the command."""

from __future__ import annotations

import json
import re
from collections import Counter
from io import StringIO
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
import torchvision
from rich.console import Console
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import easypruner
from easypruner.analysis import analyze
from easypruner.analysis.dot import dot
from easypruner.analysis.svg import svg
from easypruner.analysis.table import print_analysis
from easypruner.analysis.wiring import wire
from easypruner.cli.find_network import find_model
from easypruner.cli.main import main
from easypruner.graph import ChannelGraph
from tests.helpers.networks import NETWORKS, Concatenated, Plain, Residual, Shared, example, lively
from tests.helpers.tiny import tiny_config, write_config

NAME = 'squeezenet1_1'
SHAPE = (1, 3, 64, 64)
ARGUMENTS = (NAME, '--input-shape', '1,3,64,64')
SVG = '{http://www.w3.org/2000/svg}'
NASTY = 'a"b<i>&amp;\\N\x1b\n[red]'


class Normed(nn.Module):
    """A layer norm mixes the channels of two of its groups; one layer is not used."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.spare = nn.Linear(8, 4), nn.Linear(2, 2)
        self.norm, self.first = nn.LayerNorm(8), nn.Linear(3, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.first(x.mean((2, 3)))))


class Nasty(nn.Module):
    """A module with a name that every format must escape."""

    def __init__(self) -> None:
        super().__init__()
        self.add_module(NASTY, nn.Linear(3, 8))
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(getattr(self, NASTY)(x.mean((2, 3))))


def graph_of(build: type[nn.Module]) -> ChannelGraph:
    return easypruner.trace(lively(build), example())


def shapes(model: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in model.state_dict().items()}


def changed_by(build: type[nn.Module], *groups: str) -> set[str]:
    """Return the parameters and buffers that lose something if a unit of each group goes."""
    model = lively(build)
    graph = easypruner.trace(model, example())
    before = shapes(model)
    masks = {name: torch.arange(graph.groups[name].size) > 0 for name in groups}
    easypruner.prune(model, masks, graph=graph)
    return {name for name, shape in shapes(model).items() if shape != before[name]}


class TestSummary:
    @pytest.mark.parametrize('build', [n for n in NETWORKS if n is not Shared])
    def test_layers_and_params_are_those_that_a_cut_changes(self, build: type[nn.Module]) -> None:
        graph = graph_of(build)
        found = analyze(graph)
        for group in found.groups:
            owners = {name.rpartition('.')[0] for name in changed_by(build, group.name)}
            assert set(group.layers) == owners
        changed = changed_by(build, *graph.groups)
        params = dict(graph.model.named_parameters())
        assert found.prunable_params == sum(p.numel() for n, p in params.items() if n in changed)

    @pytest.mark.parametrize('build', NETWORKS)
    def test_every_frozen_dimension_is_in_one_row(self, build: type[nn.Module]) -> None:
        graph = graph_of(build)
        rows = analyze(graph).frozen
        assert sum(row.dims for row in rows) == len(graph.frozen)
        assert sum(row.channels for row in rows) == sum(f.channels for f in graph.frozen)
        assert len({row.reason for row in rows}) == len(rows)
        for row in rows:
            reasons = [f.reason for f in graph.frozen if f.param.startswith(row.example)]
            assert any(reason.startswith(row.reason) for reason in reasons)

    def test_a_reason_at_many_places_is_one_row(self) -> None:
        rows = {row.reason: row for row in analyze(graph_of(Plain)).frozen}
        kernels = rows['the extent of a convolution kernel']
        assert (kernels.dims, kernels.channels, kernels.example) == (4, 4 * 3, 'body.0.0')

    def test_what_mixes_channels_is_told(self) -> None:
        text = StringIO()
        print_analysis(Console(file=text, width=200), 'normed', analyze(graph_of(Normed)))
        header, _, row = text.getvalue().partition('Groups')[2].splitlines()[2:5]
        assert header.split()[:4] == ['group', 'mixed', 'by', 'units']
        assert row.split()[:3] == ['first', 'native_layer_norm', '8']


class TestWiring:
    def test_layers_stand_in_the_order_of_the_forward_pass(self) -> None:
        wiring = wire(graph_of(Normed))
        assert [layer.path for layer in wiring.layers] == ['first', 'norm', 'head', 'spare']
        assert [bool(layer.frozen) for layer in wiring.layers] == [False, False, False, True]
        assert 'not used' in wiring.layers[3].frozen
        (thread,) = wiring.threads
        assert thread.parts == {0: ('makes',), 1: ('carries',), 2: ('reads',)}

    @pytest.mark.parametrize('build', NETWORKS)
    def test_every_reader_has_a_maker(self, build: type[nn.Module]) -> None:
        graph = graph_of(build)
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
        graph = graph_of(Residual)
        nodes, edges = self.read(dot(wire(graph), 'residual'))
        names = [node['label'].split('\\n')[0] for node in nodes]
        assert names == ['stem.0', 'stem.1', 'conv.0.0', 'conv.0.1', 'conv.1', 'conv.2', 'head']
        assert edges == Counter([(0, 1), (0, 2), (0, 6), (2, 3), (2, 4), (4, 5), (4, 6)])

    def test_frozen_layers_tell_why(self) -> None:
        nodes, _ = self.read(dot(wire(graph_of(Normed)), 'normed'))
        tips = {node['label'].split('\\n')[0]: node['tooltip'] for node in nodes}
        assert tips['spare'].startswith('frozen: not used')
        assert tips['norm'] == 'group first'

    def test_names_are_escaped(self) -> None:
        nodes, edges = self.read(dot(wire(graph_of(Nasty)), NASTY))
        assert nodes[0]['label'] == (r'a\"b<i>&amp;amp;\\N\\x1b [red]\nLinear 8 x 3')
        assert edges == Counter([(0, 1)])


class TestSvg:
    def read(self, build: type[nn.Module]) -> ElementTree.Element:
        return ElementTree.fromstring(svg(wire(graph_of(build)), 'a title'))

    @pytest.mark.parametrize('build', [*NETWORKS, Normed])
    def test_a_row_for_each_layer_and_a_mark_for_each_part(self, build: type[nn.Module]) -> None:
        wiring = wire(graph_of(build))
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
        root = self.read(Concatenated)
        width, height = float(root.get('width')), float(root.get('height'))
        for element in root.iter():
            x = float(element.get('x', element.get('cx', element.get('x1', '0'))))
            y = float(element.get('y', element.get('cy', element.get('y2', '0'))))
            assert 0 <= x < width and 0 <= y < height

    @pytest.mark.parametrize('build', [Plain, Residual, Concatenated])
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


@pytest.fixture(scope='module')
def squeezenet() -> ChannelGraph:
    return easypruner.trace(torchvision.models.squeezenet1_1(), torch.zeros(SHAPE))


class TestCommand:
    def test_tables(self, squeezenet: ChannelGraph, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(['analyze', *ARGUMENTS]) == 0
        output = capsys.readouterr().out
        assert output.startswith('torchvision::squeezenet1_1, input 1 x 3 x 64 x 64\n')
        assert '\x1b' not in output and 'mixed by' not in output
        cells = [re.split(r' {2,}', line.strip()) for line in output.splitlines()]
        for name, group in squeezenet.groups.items():
            (row,) = [row for row in cells if row[0] == name]
            assert row[1] == str(group.size)
        reasons = {row.reason for row in analyze(squeezenet).frozen}
        assert reasons == {row[0] for row in cells[-6:] if row[0] in reasons}

    def test_json_is_exact(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(['analyze', *ARGUMENTS, '--json']) == 0
        content = json.loads(capsys.readouterr().out)
        model = torchvision.models.squeezenet1_1().eval()
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(torch.zeros(SHAPE))
        assert content['model'] == 'torchvision::squeezenet1_1'
        assert content['inputs'] == [list(SHAPE)]
        assert content['macs'] == counter.get_total_flops() // 2
        assert content['params'] == sum(p.numel() for p in model.parameters())
        for quantity in ('macs', 'params', 'activations'):
            layers = content['layers'].values()
            assert content[quantity] == sum(layer[quantity] for layer in layers)
        modules = dict(model.named_modules())
        assert {path for group in content['groups'] for path in group['layers']} <= set(modules)

    def test_every_frozen_dimension(
        self, squeezenet: ChannelGraph, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(['analyze', *ARGUMENTS, '--frozen']) == 0
        lines = capsys.readouterr().out.splitlines()
        for entry in squeezenet.frozen:
            pattern = re.compile(rf' *{re.escape(entry.param)} .* {entry.dim} +{entry.channels} *')
            assert any(pattern.fullmatch(line) and entry.reason in line for line in lines)

    def test_a_library_may_be_named(self, capsys: pytest.CaptureFixture[str]) -> None:
        name = 'mmpretrain::resnet18_8xb16_cifar10'
        assert main(['analyze', name, '--input-shape', '1,3,32,32', '--json']) == 0
        content = json.loads(capsys.readouterr().out)
        assert content['model'] == name
        assert any(group['name'].startswith('backbone.') for group in content['groups'])

    def test_drawings(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        files = tmp_path / 'new' / 'net.dot', tmp_path / 'net.svg'
        drawn = ['--dot', str(files[0]), '--svg', str(files[1])]
        assert main(['analyze', *ARGUMENTS, *drawn, '--json']) == 0
        json.loads(capsys.readouterr().out)
        assert files[0].read_text().startswith('digraph')
        assert ElementTree.parse(files[1]).getroot().tag == f'{SVG}svg'
        assert sorted(tmp_path.rglob('*.*')) == sorted(files)

    def test_files_are_not_overwritten_unasked(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        file = tmp_path / 'net.svg'
        file.write_text('mine')
        assert main(['analyze', *ARGUMENTS, '--svg', str(file)]) == 2
        output = capsys.readouterr()
        assert output.out == '' and '--overwrite' in output.err
        assert file.read_text() == 'mine'
        assert main(['analyze', *ARGUMENTS, '--svg', str(file), '--overwrite']) == 0
        assert file.read_text().startswith('<svg')

    @pytest.mark.parametrize(
        'options', [('--svg', '.'), ('--dot', 'a', '--svg', 'a'), ('--dot', '/dev/null/a')]
    )
    def test_places_that_cannot_be_written(
        self,
        options: tuple[str, ...],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.chdir(tmp_path)
        assert main(['analyze', *ARGUMENTS, *options]) == 2
        error = capsys.readouterr().err
        assert error.startswith('easypruner: ') and 'Traceback' not in error
        assert not list(tmp_path.iterdir())


class TestConfigs:
    def test_the_input_is_that_of_the_pipeline(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(['analyze', str(write_config(tmp_path)), '--json']) == 0
        content = json.loads(capsys.readouterr().out)
        assert content['inputs'] == [[1, 1, 8, 8]]
        assert content['groups']

    def test_without_data_a_shape_will_do(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        config = write_config(tmp_path, tiny_config(val_dataloader=None))
        assert main(['analyze', str(config)]) == 2
        assert '--input-shape' in capsys.readouterr().err
        assert main(['analyze', str(config), '--input-shape', '2,1,16,16', '--json']) == 0
        assert json.loads(capsys.readouterr().out)['inputs'] == [[2, 1, 16, 16]]

    def test_missing_data_points_to_the_shape(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(['analyze', 'masksparsity_r50_in1k']) == 2
        error = capsys.readouterr().err
        assert 'data/imagenet' in error and '--input-shape' in error


class TestMistakes:
    @pytest.mark.parametrize(
        ('name', 'hint'),
        [
            ('resnt50', 'torchvision::resnet50'),
            ('torchvision::ResNet5O', 'torchvision::resnet50'),
            ('mmpretrain::resnet50_8xb32-in1k', 'mmpretrain::resnet50_8xb32_in1k'),
            ('masksparsity_r20_digit', 'masksparsity_r20_digits'),
            ('masksparsity_r20_digit.py', 'masksparsity_r20_digits'),
            ('hub::resnet50', 'torchvision, mmpretrain'),
            ('qqqqqq', 'nothing like it'),
        ],
    )
    def test_the_nearest_name_is_told(
        self, name: str, hint: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(['analyze', name]) == 2
        output = capsys.readouterr()
        assert output.out == ''
        assert output.err.startswith('easypruner: there is no') and hint in output.err
        assert len(output.err.splitlines()) == 1 and len(output.err) < 300

    @pytest.mark.parametrize('shape', ['', '1,3,x', '1,0,8,8', '224'])
    def test_a_shape_that_is_none_or_does_not_fit(
        self, shape: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        try:
            code = main(['analyze', NAME, '--input-shape', shape])
        except SystemExit as end:
            code = end.code
        assert code == 2
        assert 'Traceback' not in capsys.readouterr().err

    def test_inception_is_looked_at_in_its_own_size(self) -> None:
        assert find_model('inception_v3').inputs.shape == (1, 3, 299, 299)
