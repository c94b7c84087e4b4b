"""The shipped configs on CIFAR-10 and ImageNet: each runs; rivals differ only in their method."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config
from mmpretrain.datasets import CIFAR10

from easypruner.errors import Mistakes
from easypruner.pipeline.fingerprint import part_fingerprints
from easypruner.pipeline.preflight import expand
from easypruner.pipeline.stages import Reinitialise, Train
from easypruner.plugins import load_plugins
from easypruner.report.text import format_count
from tests.helpers.cifar import make_cifar10
from tests.helpers.imagenet import make_imagenet
from tests.helpers.shrunk import shrunk
from tests.helpers.tiny import prune, summary

CONFIGS = Path(__file__).parents[2] / 'configs'
RELEASED = ('masksparsity_r50_in1k.py', 'masksparsity_r50_in1k_from_released_mask.py')
NAMES = sorted(
    path.name
    for path in CONFIGS.glob('[!_]*.py')
    if path.stem.endswith(('_cifar10', '_in1k')) and path.name not in RELEASED
)
SETTINGS = {
    'r50_in1k': (4_089_184_256, 25_557_032),
    'r56_cifar10': (125_747_840, 855_770),
    'r110_cifar10': (253_149_824, 1_730_714),
    'vgg16bn_cifar10': (313_201_664, 14_728_266),
    'mobilenetv2_in1k': (300_774_272, 3_504_872),
}
"""Model and data -> MACs and params of the network."""
RIVALS = ('slimming', 'l1', 'fpgm', 'depgraph', 'random', 'uniform', 'scratch')
QUICK_PLANS = ['masksparsity_r56_cifar10.py']


def cases(quick: Any) -> list[Any]:
    return [pytest.param(n, marks=[] if n in quick else pytest.mark.slow) for n in NAMES]


@pytest.fixture(scope='module')
def cifar10(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('large')
    make_cifar10(folder / 'data' / 'cifar10')
    return folder


@pytest.fixture(scope='module')
def in1k(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('large')
    make_imagenet(folder / 'data' / 'imagenet')
    return folder


@pytest.fixture
def data(name: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Made-up data where the config expects it."""
    monkeypatch.chdir(request.getfixturevalue(name.removesuffix('.py').rpartition('_')[2]))
    # The checksums are those of the real files.
    monkeypatch.setattr(CIFAR10, '_check_integrity', lambda self: True)


def test_every_setting_has_the_method_and_all_its_rivals() -> None:
    expected = {f'{method}_{s}.py' for s in SETTINGS for method in ('masksparsity', *RIVALS)}
    assert {*NAMES, RELEASED[0]} == expected


@pytest.mark.parametrize('name', cases(QUICK_PLANS))
@pytest.mark.usefixtures('data')
def test_each_is_planned_without_a_warning(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # With few images, an epoch is too short for the strengths of a fixed size.
    options = [] if 'depgraph' not in name else ['--cfg-options', 'train_dataloader.batch_size=1']
    assert prune(CONFIGS / name, tmp_path / 'run', '--plan', *options) == 0
    plan = capsys.readouterr().out
    assert 'Warnings' not in plan
    macs, params = SETTINGS[name.removesuffix('.py').partition('_')[2]]
    assert f'{format_count(macs)} MACs, {format_count(params)} params' in plan


@pytest.mark.parametrize('name', cases(()))
@pytest.mark.usefixtures('data')
def test_each_runs_unchanged_but_for_its_size(name: str, tmp_path: Path) -> None:
    assert prune(CONFIGS / name, tmp_path / 'run', '--cfg-options', *shrunk(name)) == 0
    result = summary(tmp_path / 'run')
    rows = {row['name']: row for row in result['rows']}
    limits = Config.fromfile(CONFIGS / name).budget
    for limit in limits if isinstance(limits, list) else [limits]:
        cost = limit.type.lower()
        assert rows['finetuned'][cost] <= limit.keep * rows['baseline'][cost]


@pytest.mark.parametrize('name', [n for n in NAMES if not n.startswith('masksparsity')])
def test_rivals_share_all_but_their_method(name: str) -> None:
    load_plugins()
    parts = []
    for file in (name, f'masksparsity_{name.partition("_")[2]}'):
        config = Config.fromfile(CONFIGS / file)
        planned = [p.stage for p in expand(config.stages, Mistakes())]
        # Weights that are drawn again have not learned from the epochs before.
        anew = [n for n, stage in enumerate(planned) if isinstance(stage, Reinitialise)]
        planned = planned[max(anew, default=0) :]
        epochs = sum(stage.length(config) for stage in planned if isinstance(stage, Train))
        parts.append(part_fingerprints(config, epochs))
        budgets = [stage.source.budget for stage in config.stages if 'source' in stage]
        assert file in RELEASED or budgets == [config.budget]
    if name.endswith('_r50_in1k.py'):
        # The released code has no limits of its own, so the config deletes those of its base.
        del parts[0]['graph'], parts[1]['graph']
    assert parts[0] == parts[1]


def test_missing_images_of_cifar_are_not_fetched_by_a_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert prune(CONFIGS / 'l1_r56_cifar10.py', tmp_path / 'run', '--plan') == 2
    assert 'download=True' in capfd.readouterr().err
    assert [*tmp_path.iterdir()] == []
