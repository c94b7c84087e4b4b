"""mmpretrain's own configs, as they are: a rule over its folder chooses them."""

from __future__ import annotations

from pathlib import Path

import pytest
from mmpretrain.datasets import CIFAR10

from easypruner.cli.main import main
from tests.helpers.cifar import make_cifar10
from tests.helpers.imagenet import make_imagenet
from tests.helpers.mmpretrain_configs import chosen
from tests.helpers.tiny import summary

SHRUNK = [
    'train_cfg.max_epochs=1',
    'stages.3.batches=1',
    *(
        f'{loader}_dataloader.{setting}'
        for loader in ('train', 'val')
        for setting in (
            'dataset.indices=8',
            'batch_size=4',
            'num_workers=0',
            'persistent_workers=False',
        )
    ),
]


@pytest.fixture(scope='module')
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder with data/imagenet in it."""
    folder = tmp_path_factory.mktemp('home')
    root = folder / 'data' / 'imagenet'
    make_imagenet(root)
    # Some configs name these lists of images.
    (root / 'meta').mkdir()
    for split in ('train', 'val'):
        files = sorted(file.relative_to(root / split) for file in (root / split).rglob('*.JPEG'))
        lines = [f'{file.as_posix()} {number}' for number, file in enumerate(files)]
        (root / 'meta' / f'{split}.txt').write_text('\n'.join(lines))
    return folder


def plan(config: str) -> int:
    return main(['prune', config, '--recipe', 'l1', '--macs', '0.7', '--plan'])


def run(config: str, work_dir: Path, *more: str) -> None:
    options = '--recipe', 'l1', '--macs', '0.7', '--work-dir', str(work_dir)
    assert main(['prune', config, *options, '--cfg-options', *SHRUNK, *more]) == 0
    before, after = (summary(work_dir)['rows'][index] for index in (0, -1))
    assert after['macs'] <= 0.7 * before['macs']
    assert (work_dir / 'pruned_config.py').is_file()


@pytest.mark.slow
def test_one_runs_to_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_cifar10(tmp_path / 'data' / 'cifar10')
    # The checksums are those of the real files.
    monkeypatch.setattr(CIFAR10, '_check_integrity', lambda self: True)
    monkeypatch.chdir(tmp_path)
    run('mmpretrain::resnet/resnet18_8xb16_cifar10.py', tmp_path / 'run')


@pytest.mark.slow
def test_forty_are_planned(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(data)
    configs = chosen(40, 20e9)
    assert len(set(configs)) == 40
    assert [config for config in configs if plan(config) != 0] == []


@pytest.mark.slow
@pytest.mark.parametrize('number', range(12))
def test_twelve_run_to_the_end(
    number: int, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(data)
    run(chosen(12, 3e9)[number], tmp_path / 'run')
