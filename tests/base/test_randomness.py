"""Equal seeds give equal random states, different seeds different ones."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from easypruner.base.randomness import seed_everything


def drawn() -> tuple[float, float, float]:
    # Transforms use the global generators.
    return random.random(), float(np.random.rand()), float(torch.rand(()))  # noqa: NPY002


def test_the_same_numbers_give_the_same_random_state() -> None:
    seed_everything(1, 2, 3)
    first = drawn()
    drawn()
    seed_everything(1, 2, 3)
    assert drawn() == first


@pytest.mark.parametrize('other', [(1, 2, 4), (1, 3, 3), (2, 2, 3), (3, 2, 1)])
def test_every_number_matters(other: tuple[int, ...]) -> None:
    seed_everything(1, 2, 3)
    first = drawn()
    seed_everything(*other)
    assert all(a != b for a, b in zip(first, drawn(), strict=True))
