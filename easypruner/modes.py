"""Modes: evaluation mode, and back to what was."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from torch import nn


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put every module in evaluation mode, and back afterwards.

    Flags are set directly: ``eval()`` may be overridden and do more than that.
    """
    before = [(module, module.training) for module in model.modules()]
    for module, _ in before:
        module.training = False
    try:
        yield
    finally:
        for module, was in before:
            module.training = was
