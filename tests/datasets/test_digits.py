"""The digits: a fixed, stratified split of scikit-learn's data."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

from easypruner.datasets import Digits


def key(image: Any, label: Any) -> tuple[bytes, int]:
    """Return a key that identifies an image and does not depend on its range of values."""
    return np.round(np.asarray(image, dtype=float) * 16 / image.max()).tobytes(), int(label)


def test_the_splits_are_a_partition() -> None:
    samples = [*Digits('train'), *Digits('val')]
    original = load_digits()
    assert len(Digits('train')) == 1437
    assert Counter(key(s['img'][..., 0], s['gt_label']) for s in samples) == Counter(
        key(*pair) for pair in zip(original.images, original.target, strict=True)
    )


def test_every_class_has_its_share() -> None:
    train, val = (Counter(s['gt_label'] for s in Digits(split)) for split in ('train', 'val'))
    shares = [val[digit] / (val[digit] + train[digit]) for digit in range(10)]
    assert max(shares) - min(shares) < 0.01
    assert len(Digits('train').metainfo['classes']) == 10


@pytest.mark.parametrize('scale', [1, 2, 4])
def test_every_pixel_is_repeated(scale: int) -> None:
    large, small = Digits('val', scale=scale), Digits('val')
    assert len(large) == len(small)
    for i in range(0, len(large), 40):
        image = large[i]['img']
        assert image.shape == (8 * scale, 8 * scale, 1)
        assert image.dtype == np.uint8
        expected = small[i]['img'].repeat(scale, axis=0).repeat(scale, axis=1)
        np.testing.assert_array_equal(image, expected)


def test_the_range_is_that_of_images() -> None:
    images = np.stack([sample['img'] for sample in Digits('train')])
    assert (images.min(), images.max()) == (0, 255)


def test_the_split_does_not_change() -> None:
    """The results of different versions are comparable."""
    first = {split: [s['gt_label'] for s in Digits(split)][:12] for split in ('train', 'val')}
    assert first == FIRST


FIRST = {'train': [3, 9, 1, 3, 1, 9, 4, 4, 2, 8, 3, 5], 'val': [7, 6, 3, 7, 7, 3, 2, 8, 9, 3, 2, 6]}


def test_another_split_is_refused() -> None:
    with pytest.raises(ValueError, match="'test'"):
        Digits('test')
