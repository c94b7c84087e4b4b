"""Settings of all tests."""

from __future__ import annotations

import os

import pytest
import torch

# As the command line does: waiting threads must not take the core from those that work.
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')


@pytest.fixture(autouse=True)
def seed() -> None:
    """Let every test draw the same random numbers, whichever tests ran before it."""
    torch.manual_seed(0)
