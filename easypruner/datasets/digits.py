"""scikit-learn's digits: 1,797 grey images of 8x8 pixels in ten classes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from mmpretrain.datasets import BaseDataset

_SPLIT_SEED = 0
_VALIDATION = 360
_LARGEST = 64


class Digits(BaseDataset):
    """The digits in a fixed, stratified split of 1,437 training and 360 validation images.

    A sample has an image ``img``, uint8 of shape ``(8 * scale, 8 * scale, 1)``, and ``gt_label``.

    Args:
        split: ``'train'`` or ``'val'``.
        scale: how many times every pixel is repeated in both directions.
        pipeline: the transforms.
        **kwargs: other arguments of mmpretrain's BaseDataset.
    """

    METAINFO: ClassVar = {'classes': tuple(str(digit) for digit in range(10))}

    def __init__(
        self,
        split: Literal['train', 'val'] = 'train',
        scale: int = 1,
        pipeline: Sequence[Any] = (),
        **kwargs: Any,
    ) -> None:
        if split not in ('train', 'val'):
            raise ValueError(f"split={split!r} of Digits; expected 'train' or 'val'")
        if type(scale) is not int or not 1 <= scale <= _LARGEST:
            raise ValueError(f'scale={scale!r} of Digits; expected a whole number up to {_LARGEST}')
        self.split = split
        self.scale = scale
        # Packing samples for worker processes would only slow down such a small data set.
        settings = {'test_mode': split == 'val', 'serialize_data': False, **kwargs}
        super().__init__(ann_file='', pipeline=pipeline, **settings)

    def load_data_list(self) -> list[dict[str, Any]]:
        """Return the samples of the split."""
        images, labels = _read_split(self.split)
        grown = images.repeat(self.scale, axis=1).repeat(self.scale, axis=2)
        return [
            {'img': image.copy(), 'gt_label': label}
            for image, label in zip(grown, labels, strict=True)
        ]


@cache
def _read_split(split: str) -> tuple[npt.NDArray[np.uint8], list[int]]:
    """Return the images of a split, of shape (8, 8, 1), and their labels."""
    # scikit-learn takes a second to import, and only these data need it.
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    train, val = train_test_split(
        np.arange(len(digits.target)),
        test_size=_VALIDATION,
        random_state=_SPLIT_SEED,
        stratify=digits.target,
    )
    chosen = train if split == 'train' else val
    images = (digits.images[chosen] * 15.9375).astype(np.uint8)[..., None]
    return images, digits.target[chosen].tolist()
