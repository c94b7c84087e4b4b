"""Settings of all tests."""

from __future__ import annotations

import os

import pytest
import torch

# As in the command line: waiting threads must not block the cores of working threads.
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')


@pytest.fixture(autouse=True)
def seed() -> None:
    """Seed torch, so that random numbers of a test do not depend on earlier tests."""
    torch.manual_seed(0)
