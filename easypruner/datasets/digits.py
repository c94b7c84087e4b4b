"""scikit-learn's digits: 1,797 grey images of 8x8 pixels in ten classes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, ClassVar, Literal

import numpy as np
from mmpretrain.datasets import BaseDataset

_SPLIT_SEED = 0
_VALIDATION = 360


class Digits(BaseDataset):
    """The digits in a fixed, stratified split: 1,437 to train on and 360 to validate on.

    Each sample holds ``img``, uint8 of shape ``(8 * scale, 8 * scale, 1)``, and ``gt_label``.

    Args:
        split: ``'train'`` or ``'val'``.
        scale: every pixel is repeated this many times in both directions.
        pipeline: transforms.
        **kwargs: of mmpretrain's BaseDataset.
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
        self.split = split
        self.scale = scale
        # They are few: packed for sharing between workers they would only load more slowly.
        settings = {'test_mode': split == 'val', 'serialize_data': False, **kwargs}
        super().__init__(ann_file='', pipeline=pipeline, **settings)

    def load_data_list(self) -> list[dict[str, Any]]:
        """Return the samples of the split."""
        from sklearn.model_selection import train_test_split

        digits = _read_digits()
        train, val = train_test_split(
            np.arange(len(digits.target)),
            test_size=_VALIDATION,
            random_state=_SPLIT_SEED,
            stratify=digits.target,
        )
        grown = np.ones((self.scale, self.scale))
        return [
            {
                'img': np.kron(digits.images[i] * 15.9375, grown).astype(np.uint8)[:, :, None],
                'gt_label': int(digits.target[i]),
            }
            for i in (train if self.split == 'train' else val)
        ]


@cache
def _read_digits() -> Any:
    from sklearn.datasets import load_digits

    return load_digits()
