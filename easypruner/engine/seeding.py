"""Seeds for every source of chance, from numbers that a resumed run knows as well."""

from __future__ import annotations

import random

import numpy as np
import torch


def seed_everything(*entropy: int) -> None:
    """Seed Python, NumPy and torch from numbers of at least 0, all of which matter."""
    for_python, for_numpy, for_torch = np.random.SeedSequence(entropy).generate_state(3).tolist()
    random.seed(for_python)
    np.random.seed(for_numpy)  # noqa: NPY002 - transforms draw from the global generator
    torch.manual_seed(for_torch)


def seed_worker(worker: int, entropy: tuple[int, ...]) -> None:
    """Seed a data loader's worker process; of its own, whatever the number of epochs before."""
    seed_everything(*entropy, worker + 1)
