"""Seeds for Python, NumPy and torch, and blocks that run with a fixed seed."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import numpy as np
import torch


def seed_everything(*entropy: int) -> None:
    """Seed Python, NumPy and torch.

    Args:
        *entropy: numbers of at least 0; other numbers give another random state.
    """
    for_python, for_numpy, for_torch = np.random.SeedSequence(entropy).generate_state(3).tolist()
    random.seed(for_python)
    np.random.seed(for_numpy)  # noqa: NPY002 - transforms draw from the global generator
    torch.manual_seed(for_torch)


def seed_worker(worker: int, entropy: tuple[int, ...]) -> None:
    """Seed a worker process of a data loader; equal arguments give an equal random state."""
    seed_everything(*entropy, worker + 1)


@contextlib.contextmanager
def fixed_seed(seed: int) -> Iterator[None]:
    """Run a block with a fixed seed, and restore the random state afterwards.

    Args:
        seed: a number of at least 0, for Python, NumPy and torch.
    """
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - transforms draw there
    # fork_rng() warns on machines with several GPUs unless they are listed.
    with torch.random.fork_rng(list(range(torch.cuda.device_count()))):
        seed_everything(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002
