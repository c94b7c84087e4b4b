"""Seeds for Python, NumPy and torch, and blocks that run with a fixed seed."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator, Mapping
from typing import Any

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


def random_state() -> dict[str, Any]:
    """Return the random state of this process: numbers and tensors, which need no unpickling."""
    version, words, gauss = random.getstate()
    _, keys, at, has_gauss, cached = np.random.get_state()  # noqa: NPY002 - as above
    return {
        'python': [version, list(words), gauss],
        'numpy': [torch.from_numpy(np.asarray(keys, dtype=np.int64)), at, has_gauss, cached],
        'torch': torch.get_rng_state(),
        'cuda': torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_random_state(state: Mapping[str, Any]) -> None:
    """Restore what :func:`random_state` has returned."""
    version, words, gauss = state['python']
    random.setstate((version, tuple(words), gauss))
    keys, at, has_gauss, cached = state['numpy']
    numpy = ('MT19937', keys.cpu().numpy().astype(np.uint32), at, has_gauss, cached)
    np.random.set_state(numpy)  # noqa: NPY002 - as above
    torch.set_rng_state(state['torch'].cpu())
    if state['cuda'] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all([device.cpu() for device in state['cuda']])
