"""Chance: a stretch of code that always draws the same, and takes nothing from what follows."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import numpy as np
import torch

from easypruner.engine.seeding import seed_everything


@contextlib.contextmanager
def same_chance(seed: int) -> Iterator[None]:
    """Seed Python, NumPy and torch, and put them back afterwards to where they were.

    Args:
        seed: of at least 0.
    """
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - transforms draw there
    # Named one by one, for fork_rng warns where there are several.
    with torch.random.fork_rng(list(range(torch.cuda.device_count()))):
        seed_everything(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002
