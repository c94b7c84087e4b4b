"""Configs of other packages are found by name, without pkg_resources."""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

import mmengine.utils
import mmpretrain
import pytest

from easypruner.engine.config import config_of_file
from easypruner.engine.foreign_configs import (
    enable_foreign_configs,
    foreign_config,
    get_installed_path,
    is_installed,
)
from easypruner.errors import ConfigError

HOME = Path(mmpretrain.__file__).parent
RESNET = 'mmpretrain::resnet/resnet18_8xb32_in1k.py'


def test_names_are_paths_in_the_package() -> None:
    assert foreign_config(RESNET) == HOME / '.mim/configs/resnet/resnet18_8xb32_in1k.py'
    assert foreign_config(RESNET.removesuffix('.py')) == foreign_config(RESNET)
    assert foreign_config('mmpretrain::resnet18_8xb32_in1k') == foreign_config(RESNET)


def test_a_shipped_base_has_a_name_too() -> None:
    assert foreign_config('easypruner::_base_/runtime.py').is_file()


@pytest.mark.parametrize(
    ('name', 'expected'),
    [
        ('mmpretrain::resnet/resnet18_8xb32_in1', "did you mean 'resnet/resnet18_8xb32_in1k.py'"),
        ('mmpretrain::zzzzzzzzzzzz', 'they are in '),
        ('mmnothing::resnet/x.py', "the package 'mmnothing' is not installed"),
        ('::resnet/x.py', "the package '' is not installed"),
        ('json::x.py', "the package 'json' has no configs"),
    ],
)
def test_a_wrong_name_is_explained(name: str, expected: str) -> None:
    with pytest.raises(ConfigError) as error:
        foreign_config(name)
    assert expected in str(error.value)


LAZY = 'from mmengine.config import read_base\nwith read_base():\n    from .old import *\nseed = 3'


@pytest.mark.parametrize('text', [f"_base_ = '{RESNET}'\nseed = 3\n", LAZY])
def test_bases_are_read_without_pkg_resources(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, 'pkg_resources', None)
    (tmp_path / 'old.py').write_text(
        "model = dict(type='ImageClassifier', backbone=dict(depth=18))\n"
    )
    file = tmp_path / 'mine.py'
    file.write_text(text)
    config = config_of_file(file)
    assert (config.seed, config.model.backbone.depth) == (3, 18)
    assert config.model.type == 'ImageClassifier'


@pytest.mark.in_ci
def test_packages_are_found_by_module_and_by_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, 'pkg_resources', None)
    enable_foreign_configs()
    assert mmengine.utils.get_installed_path is get_installed_path
    assert mmengine.utils.is_installed is is_installed
    assert get_installed_path('mmpretrain') == str(HOME)
    assert Path(get_installed_path('mmcv-lite')).name == 'mmcv'
    assert is_installed('mmcv-lite')
    assert is_installed('mmcv')
    assert not is_installed('mm-nothing')
    with pytest.raises(metadata.PackageNotFoundError):
        get_installed_path('mmnothing')


def test_a_config_that_mmengine_cannot_read_is_explained() -> None:
    with pytest.raises(ConfigError, match='imports a module, which makes it a config of the new'):
        config_of_file(foreign_config('mmpretrain::replknet/replknet-31B_32xb64_in1k.py'))


def test_a_missing_base_is_named(tmp_path: Path) -> None:
    file = tmp_path / 'mine.py'
    file.write_text("_base_ = 'mmpretrain::resnet/resnet18_8xb32_in1.py'\n")
    with pytest.raises(ConfigError, match=r'mine.*a base config is missing.*resnet18_8xb32_in1k'):
        config_of_file(file)
