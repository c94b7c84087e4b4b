"""Randomness: seeds for Python, NumPy and torch, and blocks that draw with a fixed seed."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import numpy as np
import torch


def seed_everything(*entropy: int) -> None:
    """Seed Python, NumPy and torch from numbers of at least 0, all of which matter."""
    for_python, for_numpy, for_torch = np.random.SeedSequence(entropy).generate_state(3).tolist()
    random.seed(for_python)
    np.random.seed(for_numpy)  # noqa: NPY002 - transforms draw from the global generator
    torch.manual_seed(for_torch)


def seed_worker(worker: int, entropy: tuple[int, ...]) -> None:
    """Seed a data loader's worker process, the same in every epoch that has this entropy."""
    seed_everything(*entropy, worker + 1)


@contextlib.contextmanager
def fixed_seed(seed: int) -> Iterator[None]:
    """Run a block with a fixed seed, and restore the random state afterwards.

    Args:
        seed: of Python, NumPy and torch, at least 0.
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
