"""The command that exports networks: of runs, records, files of Python and models by name."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from easypruner.cli.main import main
from easypruner.testing import run_stages

PYTHON = """
from __future__ import annotations
from dataclasses import dataclass
import torch
from torch import nn

@dataclass
class Settings:
    width: int = 4

def bare():
    return nn.Conv2d(3, 4, 3)

def both():
    return nn.Conv2d(3, 4, 3), (torch.rand(1, 3, 6, 6),)

def importing():
    from beside import WIDTH
    return nn.Conv2d(3, WIDTH, 3), (torch.rand(1, 3, 6, 6),)

def neither():
    return 'a network'

def slimmed():
    import easypruner
    network, images = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3)), torch.rand(1, 3, 6, 6)
    return easypruner.slim(network, images, macs=0.5), images

network = bare()
"""


@pytest.fixture(scope='module')
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('run')
    source = dict(type='L1Norm', budget=dict(type='Macs', keep=0.5))
    run_stages(
        [
            dict(type='Train', row='baseline', epochs=1),
            dict(type='SelectMask', source=source),
            dict(type='Prune'),
        ],
        folder,
    )
    return folder / 'run'


def export(*arguments: Any) -> int:
    return main(['export', *map(str, arguments), '--runtime', 'TorchEager'])


def outputs(file: Path) -> torch.Tensor:
    image = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    found: torch.Tensor = torch.export.load(file).module()(image)
    return found


@pytest.mark.slow
def test_the_networks_of_a_run(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(run, '--out', tmp_path / 'e') == 0
    assert 'any batch' in capsys.readouterr().out
    pruned, unpruned = tmp_path / 'e/TorchEager/network.pt2', tmp_path / 'e/TorchEager/unpruned.pt2'
    assert pruned.stat().st_size < unpruned.stat().st_size

    # The same by the record, and with the weights of the run: the record has none.
    config = run.parent / 'tiny.py'
    given = ('--model', config, '--weights', run / 'pruned.pth', '--no-unpruned')
    assert export(run / 'architecture.json', '--out', tmp_path / 'f', *given) == 0
    again = tmp_path / 'f/TorchEager/network.pt2'
    torch.testing.assert_close(outputs(again), outputs(pruned))
    assert not (tmp_path / 'f/TorchEager/unpruned.pt2').exists()

    # The unpruned network has the trained weights: those of the row "baseline".
    state = json.loads((run / '00_train' / 'state.json').read_text())
    trained = run / state['checkpoint']
    assert export(config, '--out', tmp_path / 'g', '--weights', trained) == 0
    torch.testing.assert_close(outputs(tmp_path / 'g/TorchEager/network.pt2'), outputs(unpruned))


@pytest.mark.parametrize(
    'function',
    [
        'importing',
        'bare --input-shape 1,3,6,6',
        'network --input-shape 1,3,6,6',
        'slimmed',
    ],
)
def test_a_function_of_a_file(
    function: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / 'networks.py'
    file.write_text(PYTHON)
    (tmp_path / 'beside.py').write_text('WIDTH = 4')
    name, *options = function.split()
    assert export(f'{file}:{name}', *options, '--out', tmp_path / 'e') == 0
    # Only the function knows which weights these are.
    assert 'the weights are random' not in capsys.readouterr().out
    assert export(tmp_path / 'e', '--out', tmp_path / 'f') == 2
    assert 'has what an export wrote' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['networks.py:bare'], 'give the shape with --input-shape'),
        (['networks.py:neither'], 'returns a str; expected a network'),
        (['networks.py'], 'name a function in it: networks.py:FUNCTION'),
        (['torchvison::resnet18'], "did you mean 'torchvision'"),
        (['networks.py:absent'], "has no function 'absent'"),
        (['other.py:bare'], "there is no file 'other.py'"),
        (['.'], 'has no pruned_config.py'),
        (['record.json'], "there is no record 'record.json'"),
        (['architecture.json'], 'name the network that it was made on with --model'),
        (['resnet1'], 'did you mean'),
        (['networks.py:both', '--weights', 'none.pth'], 'none.pth'),
        (['networks.py:both', '--out', 'networks.py'], 'is a file; expected a folder'),
        (['networks.py:both', '--out', 'pipe'], 'is a file; expected a folder'),
        (['networks.py:both', '--runtime', 'OnxRuntime'], "did you mean 'OnnxRuntime'"),
    ],
)
def test_mistakes(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path('networks.py').write_text(PYTHON)
    Path('architecture.json').write_text('{}')
    os.mkfifo('pipe')
    before = sorted(tmp_path.iterdir())
    assert export(*arguments) == 2
    error = capsys.readouterr().err
    assert message in error and 'Traceback' not in error
    assert sorted(tmp_path.iterdir()) == before and Path('pipe').is_fifo()
