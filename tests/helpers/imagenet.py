"""A made-up data set in ImageNet's folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = 1000
SIDE = 40


def make_imagenet(folder: Path) -> None:
    """Write one small JPEG for each of the 1000 classes, for training and for validation."""
    generator = np.random.default_rng(0)
    for split in ('train', 'val'):
        for number in range(CLASSES):
            file = folder / split / f'n{number:08d}' / 'image.JPEG'
            file.parent.mkdir(parents=True)
            pixels = generator.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(file)
