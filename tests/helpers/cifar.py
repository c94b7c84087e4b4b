"""A made-up data set in the files of CIFAR-10."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
from mmpretrain.datasets import CIFAR10

IMAGES = 20
"""The number of images in each of the six files."""


def make_cifar10(root: Path) -> None:
    """Write small files in the layout of the real ones; their checksums are wrong."""
    generator = np.random.default_rng(0)
    folder = root / CIFAR10.base_folder
    folder.mkdir(parents=True)
    for name, _ in (*CIFAR10.train_list, *CIFAR10.test_list):
        pixels = generator.integers(0, 256, (IMAGES, 3 * 32 * 32), dtype=np.uint8)
        labels = [number % 10 for number in range(IMAGES)]
        (folder / name).write_bytes(pickle.dumps({'data': pixels, 'labels': labels}))
    classes = [f'class {number}' for number in range(10)]
    (folder / CIFAR10.meta['filename']).write_bytes(pickle.dumps({'label_names': classes}))
