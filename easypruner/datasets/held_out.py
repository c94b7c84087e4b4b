"""A part of a data set, so that values can be tuned on samples that no final result uses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from mmengine.registry import DATASETS
from torch.utils.data import Dataset


class HeldOut(Dataset[Any]):
    """The held-out samples of a data set, or all others.

    Args:
        dataset: the config of the data set.
        held: whether these are the held-out samples.
        share: the share of the samples that is held out.
        seed: the seed of the draw.
    """

    def __init__(
        self, dataset: Mapping[str, Any], held: bool, share: float = 0.2, seed: int = 0
    ) -> None:
        self.dataset: Any = DATASETS.build(dict(dataset))
        self.full_init()
        order = np.random.default_rng(seed).permutation(len(self.dataset))
        count = max(1, round(share * len(order)))
        self.indices = sorted((order[:count] if held else order[count:]).tolist())

    @property
    def metainfo(self) -> Any:
        """The description of the data set."""
        return self.dataset.metainfo

    def full_init(self) -> None:
        """Read the list of samples."""
        if hasattr(self.dataset, 'full_init'):
            self.dataset.full_init()

    def get_data_info(self, index: int) -> Any:
        """Return a sample before the transforms."""
        return self.dataset.get_data_info(self.indices[index])

    def __getitem__(self, index: int) -> Any:
        return self.dataset[self.indices[index]]

    def __len__(self) -> int:
        return len(self.indices)
