"""Batches that change from pass to pass."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from easypruner import Context


def shuffled_batches(context: Context, count: int = 3) -> Context:
    """Return a context whose batches differ in each pass, drawn from torch's global generator."""

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for _ in range(count):
            yield torch.randn(8, 3, 8, 8), torch.randint(5, (8,))

    return replace(context, batches=batches)
