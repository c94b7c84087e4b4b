"""Config files in folders of any name are read as they were written."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import pytest
from mmengine.config import Config

from easypruner.pipeline.stages.config_text import beside, config_text

CONTENT = {
    'load_from': beside('pruned.pth'),
    'model': {'architecture': beside('architecture.json'), 'name': "it's \"quoted\" \\ 'twice'"},
    'clip': {'max_norm': math.inf, 'least': [-math.inf, 0.5]},
}


@pytest.mark.parametrize('name', ["it's", 'a "b"', "'", 'back\\slash', '"""', 'ein Wört', "a\\'b"])
def test_paths_and_numbers_are_read(name: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    folder.mkdir()
    file = folder / 'pruned_config.py'
    file.write_text(config_text(CONTENT, folder), encoding='utf-8')
    read = Config.fromfile(file)
    assert Path(read.load_from) == folder / 'pruned.pth'
    assert Path(read.model.architecture) == folder / 'architecture.json'
    assert read.model.name == CONTENT['model']['name']
    assert read.clip == CONTENT['clip']


def test_a_folder_with_a_common_name_can_be_moved(tmp_path: Path) -> None:
    first, second = tmp_path / 'first', tmp_path / "it's second"
    first.mkdir()
    (first / 'c.py').write_text(config_text(CONTENT, first), encoding='utf-8')
    shutil.move(first, second)
    assert Path(Config.fromfile(second / 'c.py').load_from) == second / 'pruned.pth'
