"""The page on configs of mmpretrain: its commands run on made-up data."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from easypruner.cli.main import main
from easypruner.pipeline.recipes import shipped_recipes
from tests.helpers.imagenet import make_imagenet

PAGE = (Path(__file__).parents[2] / 'docs' / 'mmpretrain.md').read_text(encoding='utf-8')
COMMANDS = re.findall(r'^```\n(easypruner .*)\n```$', PAGE, re.MULTILINE)
OWN = 'easypruner prune my_config.py --macs 0.6'


@pytest.fixture(scope='module')
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder with the config of the page and its data."""
    folder = tmp_path_factory.mktemp('home')
    (config,) = re.findall(r'^```python\n(.*?)^```$', PAGE, re.MULTILINE | re.DOTALL)
    (folder / 'my_config.py').write_text(config)
    pixels = np.zeros((40, 40, 3), dtype=np.uint8)
    for split in ('train', 'val'):
        for name in ('cat', 'dog', 'fish', 'bird'):
            file = folder / 'data' / 'pets' / split / name / 'image.jpg'
            file.parent.mkdir(parents=True)
            Image.fromarray(pixels).save(file)
    return folder


@pytest.mark.in_ci
def test_the_config_of_the_page_is_planned(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(home)
    assert main([*shlex.split(OWN)[1:], '--plan']) == 0
    plan = capsys.readouterr().out
    assert 'train 30 epochs' in plan
    assert 'budget Macs 0.6' in plan


@pytest.mark.slow
@pytest.mark.parametrize('command', [command for command in COMMANDS if command != OWN])
def test_the_commands_of_the_page_are_planned(
    command: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    if not (home / 'data' / 'imagenet').is_dir():
        make_imagenet(home / 'data' / 'imagenet')
    assert main([*shlex.split(command)[1:], '--plan']) == 0


def test_the_page_has_every_recipe() -> None:
    table = ' '.join(line.split('|')[1] for line in PAGE.splitlines() if line.startswith('| `'))
    assert set(re.findall(r'`(\w+)`', table)) == set(shipped_recipes())
    assert OWN in COMMANDS
    assert len(COMMANDS) == 4
