"""The command that analyzes a network: tables, JSON, drawings, and mistakes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
import torchvision
from torch.utils.flop_counter import FlopCounterMode

import easypruner
from easypruner.analysis import analyze
from easypruner.cli.find_network import find_model
from easypruner.cli.main import main
from easypruner.graph import ChannelGraph
from tests.cli.test_export import PYTHON
from tests.helpers.clocked import Clocked, use_clock
from tests.helpers.tiny import tiny_config, write_config

NAME = 'squeezenet1_1'
SHAPE = (1, 3, 64, 64)
ARGUMENTS = (NAME, '--input-shape', '1,3,64,64')
SVG = '{http://www.w3.org/2000/svg}'


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

    @pytest.mark.in_ci
    def test_times_in_a_runtime(
        self,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
    ) -> None:
        use_clock(monkeypatch, tmp_path)
        monkeypatch.setattr('easypruner.cli.network_report.runtime_of', lambda *_: Clocked())
        arguments = ['analyze', 'alexnet', '--input-shape', '1,3,64,64', '--runtime', 'Clocked']
        assert main(arguments) == 0
        output = capsys.readouterr().out
        assert 'Time in Clocked, 1 thread, ' in output
        assert '50 % of MACs' in output and 'What half of a group saves' in output
        assert main([*arguments, '--json']) == 0
        content = json.loads(capsys.readouterr().out)
        names = [group['name'] for group in content['groups']]
        assert [group['name'] for group in content['speed']['groups']] == names
        assert content['speed']['seconds']['median'] == pytest.approx(1e-9 * content['macs'])

    def test_an_unknown_runtime(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(['analyze', *ARGUMENTS, '--runtime', 'OnnxRuntim']) == 2
        assert "did you mean 'OnnxRuntime'" in capsys.readouterr().err

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

    def test_kinds_of_structure(
        self, squeezenet: ChannelGraph, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(['analyze', *ARGUMENTS]) == 0
        lines = capsys.readouterr().out.partition('Kinds of structure')[2].splitlines()
        cells = [re.split(r' {2,}', line.strip()) for line in lines]
        assert main(['analyze', *ARGUMENTS, '--json']) == 0
        kinds = {kind['kind']: kind for kind in json.loads(capsys.readouterr().out)['kinds']}
        assert kinds.keys() == {share.kind for share in squeezenet.shares}
        for share in squeezenet.shares:
            (row,) = [row for row in cells if row[0] == share.kind]
            assert row[1:3] == [str(share.units), str(share.prunable)]
            assert kinds[share.kind]['prunable'] == share.prunable
            for held in share.held:
                assert [f'held: {held.reason}', str(held.units)] in [row[:2] for row in cells]

    def test_a_channel_is_explained(
        self, squeezenet: ChannelGraph, capsys: pytest.CaptureFixture[str]
    ) -> None:
        channels = ['--explain', 'features.3.squeeze[5]', '--explain', 'classifier.1.weight[7]']
        assert main(['analyze', *ARGUMENTS, *channels]) == 0
        output = capsys.readouterr().out
        found = [
            squeezenet.explain('features.3.squeeze.weight', 0, 5),
            squeezenet.explain('classifier.1.weight', 0, 7),
        ]
        assert output == '\n\n'.join(map(str, found)) + '\n'
        assert main(['analyze', *ARGUMENTS, *channels, '--json']) == 0
        content = json.loads(capsys.readouterr().out)
        assert [each['group'] for each in content] == [found[0].group, None]
        assert main(['analyze', *ARGUMENTS, '--explain', 'features.3.sqeeze[5]']) == 2
        assert "did you mean 'features.3.squeeze'" in capsys.readouterr().err

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

    def test_files_are_not_overwritten_without_the_option(
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
    def test_paths_that_cannot_be_written(
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


class TestOtherNetworks:
    def test_a_function_of_a_file(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        Path('networks.py').write_text(PYTHON)
        assert main(['analyze', 'networks.py:both', '--json']) == 0
        content = json.loads(capsys.readouterr().out)
        assert (content['model'], content['inputs']) == ('networks.py:both', [[1, 3, 6, 6]])
        assert main(['analyze', 'networks.py:bare']) == 2
        assert 'give the shape with --input-shape' in capsys.readouterr().err
        assert main(['analyze', 'networks.py']) == 2
        assert 'FILE.py:FUNCTION' in capsys.readouterr().err

    def test_a_record(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        net = torchvision.models.squeezenet1_1()
        graph = easypruner.trace(net, torch.zeros(SHAPE))
        masks = {'features.3.squeeze': torch.arange(16) > 5}
        record = tmp_path / 'architecture.json'
        easypruner.prune(net, masks, graph=graph).save(record)
        arguments = ['analyze', str(record), '--input-shape', '1,3,64,64', '--json']
        assert main([*arguments, '--model', NAME]) == 0
        content = json.loads(capsys.readouterr().out)
        assert content['macs'] == graph.cost().macs
        assert main(arguments) == 2
        assert '--model' in capsys.readouterr().err


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
            ('hub::resnet50', 'known names: mmpretrain, '),
            ('torchvison::resnet50', "did you mean 'torchvision'?"),
            ('qqqqqq', 'known names is similar'),
        ],
    )
    def test_the_nearest_name_is_reported(
        self, name: str, hint: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(['analyze', name]) == 2
        output = capsys.readouterr()
        assert output.out == ''
        assert output.err.startswith('easypruner: there is no') and hint in output.err
        assert len(output.err.splitlines()) == 1 and len(output.err) < 300

    @pytest.mark.parametrize('shape', ['', '1,3,x', '1,0,8,8', '224'])
    def test_an_invalid_or_mismatched_shape(
        self, shape: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        try:
            code = main(['analyze', NAME, '--input-shape', shape])
        except SystemExit as end:
            code = end.code
        assert code == 2
        assert 'Traceback' not in capsys.readouterr().err

    def test_inception_is_analyzed_in_its_own_size(self) -> None:
        assert find_model('inception_v3').inputs.shape == (1, 3, 299, 299)
