"""Files of users that define networks: scripts and modules of packages, functions and classes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from easypruner.cli.main import main

LAYERS = """
from torch import nn


def layer(width):
    return nn.Conv2d(3, width, 1)
"""
NETWORK = """
import torch
from torch import nn

from .layers import layer


class Net(nn.Sequential):
    def __init__(self, width, classes=5):
        super().__init__(layer(width), nn.Conv2d(width, classes, 1))


def build():
    return Net(8), torch.rand(1, 3, 4, 4)
"""


@pytest.fixture(params=['whole', 'inner', 'no package'])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Write a file that imports relatively, in a package or in a folder that is none."""
    folder = tmp_path / f'nets_of_{request.param.replace(" ", "_")}'
    if request.param == 'inner':
        folder = folder / 'parts'
    folder.mkdir(parents=True)
    if request.param != 'no package':
        (folder / '__init__.py').write_text('', encoding='utf-8')
    if request.param == 'inner':
        (folder.parent / '__init__.py').write_text('', encoding='utf-8')
    (folder / 'layers.py').write_text(LAYERS, encoding='utf-8')
    (folder / 'network.py').write_text(NETWORK, encoding='utf-8')
    return folder / 'network.py'


def test_a_file_that_imports_relatively_is_a_module_of_its_package(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(['analyze', f'{file}:build', '--json']) == 0
    groups = json.loads(capsys.readouterr().out)['groups']
    assert [(group['name'], group['units']) for group in groups] == [('0', 8)]


def test_a_class_that_needs_arguments_is_explained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / 'alone.py'
    content = NETWORK.replace('from .layers import layer', LAYERS)
    file.write_text(content, encoding='utf-8')
    assert main(['analyze', f'{file}:Net']) == 2
    text = ' '.join(capsys.readouterr().err.split())
    assert 'alone.py:Net is a class that needs arguments: Net(width, classes=5)' in text
    assert 'write a function without arguments that returns Net(...)' in text
