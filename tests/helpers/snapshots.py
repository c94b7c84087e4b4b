"""Copies of all that a cut may change, to compare with afterwards."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn


def copied_state(
    model: nn.Module, optimizer: torch.optim.Optimizer | None = None
) -> dict[str, Any]:
    """Return copies of all that a cut may change."""
    numbers = {
        f'{path}.{name}': value
        for path, module in model.named_modules()
        for name, value in vars(module).items()
        if isinstance(value, int | tuple)
    }
    gradients = {name: p.grad for name, p in model.named_parameters()}
    state = optimizer.state_dict() if optimizer else {}
    return copy.deepcopy(
        {'numbers': numbers, **model.state_dict(), 'grads': gradients, 'state': state}
    )
