"""The shipped configs: each is complete, and competing ones differ only in their method."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from mmengine.config import Config

from easypruner.errors import Mistakes
from easypruner.pipeline.fingerprint import part_fingerprints
from easypruner.pipeline.preflight import expand
from easypruner.pipeline.stages import Train
from easypruner.plugins import load_plugins
from tests.helpers.imagenet import make_imagenet
from tests.helpers.tiny import prune

CONFIGS = Path(__file__).parents[2] / 'configs'
FILES = sorted(path.relative_to(CONFIGS) for path in CONFIGS.rglob('*.py'))
FLAT = [path.name for path in FILES if path.parent == Path()]
DIGITS = [name for name in FLAT if name.endswith('_digits.py')]
HARD = [name for name in FLAT if name.endswith('_mnist5k_hard.py')]
ROWS = ['baseline', 'sparse', 'pruned', 'calibrated', 'finetuned']


def read(name: str) -> Config:
    return Config.fromfile(CONFIGS / name)


def rows(config: Config) -> list[str]:
    own = {'Prune': 'pruned', 'Calibrate': 'calibrated'}
    found = [stage.get('row', own.get(stage.type)) for stage in config.stages]
    return [row for row in found if row is not None]


def test_there_are_configs() -> None:
    assert {'masksparsity_r20_digits.py', 'masksparsity_r50_in1k.py'} < set(FLAT)
    assert len(DIGITS) >= 4


@pytest.mark.parametrize('file', FILES, ids=str)
def test_each_can_be_read(file: Path) -> None:
    assert read(str(file))
    assert (CONFIGS / file).read_text().startswith('"""')


@pytest.mark.parametrize('file', FILES, ids=str)
def test_none_needs_the_configs_of_another_package(file: Path) -> None:
    assert '::' not in (CONFIGS / file).read_text()


@pytest.mark.parametrize('name', FLAT)
def test_names_contain_strategy_model_and_data(name: str) -> None:
    pattern = (
        r'[a-z0-9]+(_l1)?_(r\d+|vgg\d+bn|mobilenetv2)_(digits|mnist5k_hard|cifar10|in1k)'
        r'(_from_released_mask)?\.py'
    )
    assert re.fullmatch(pattern, name)
    assert len((CONFIGS / name).read_text().splitlines()) <= 60


@pytest.mark.parametrize('name', DIGITS)
def test_those_on_embedded_data_are_clean(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prune(CONFIGS / name, tmp_path / 'run', '--plan') == 0
    assert 'Warnings' not in capsys.readouterr().out


@pytest.mark.parametrize('name', HARD)
def test_those_on_hard_images_train_for_the_same_number_of_epochs(name: str) -> None:
    load_plugins()
    config = read(name)
    planned = expand(config.stages, Mistakes())
    lengths = [p.stage.length(config) for p in planned if isinstance(p.stage, Train)]
    expected = round(3.25 * config.train_cfg.max_epochs)
    # New weights are trained for as long as the others in all.
    assert sum(lengths) - (lengths[0] if 'scratch' in name else 0) == expected
    assert [s.source.budget for s in config.stages if 'source' in s] == [config.budget]
    rival = read(name.replace(name.partition('_r20')[0].partition('_vgg6bn')[0], 'l1', 1))
    assert part_fingerprints(config, 0) == part_fingerprints(rival, 0)


@pytest.mark.slow
def test_the_released_recipe_is_clean(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_imagenet(tmp_path / 'data' / 'imagenet')
    monkeypatch.chdir(tmp_path)
    assert prune(CONFIGS / 'masksparsity_r50_in1k.py', tmp_path / 'run', '--plan') == 0
    plan = capsys.readouterr().out
    assert '4.09 G MACs, 25.6 M params' in plan
    assert plan.count('train 100 epochs') == 4


def test_without_its_data_the_recipe_reports_where_it_belongs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert prune(CONFIGS / 'masksparsity_r50_in1k.py', tmp_path / 'run') == 2
    message = capfd.readouterr().err
    assert message.startswith('easypruner: 2 mistakes:')
    assert message.count('data/imagenet') == 2


@pytest.mark.parametrize('name', DIGITS)
def test_rivals_share_all_but_their_method(name: str) -> None:
    load_plugins()
    ours, theirs = read(name), read('masksparsity_r20_digits.py')
    parts = []
    for config in (ours, theirs):
        planned = expand(config.stages, Mistakes())
        epochs = sum(p.stage.length(config) for p in planned if isinstance(p.stage, Train))
        parts.append(part_fingerprints(config, epochs))
        config.stages = [p.config for p in planned]
        for stage in config.stages:
            budget = stage.source.budget if 'source' in stage else dict(type='Macs', keep=0.5)
            assert dict(type='Macs', keep=0.5) in (budget if isinstance(budget, list) else [budget])
        last, report = config.stages[-2:]
        assert (last.type in ('Train', 'Distill'), last.row) == (True, 'finetuned')
        assert report.type == 'Report'
    assert parts[0] == parts[1]


def test_the_method_shows_every_row() -> None:
    assert rows(read('masksparsity_r20_digits.py')) == ROWS
