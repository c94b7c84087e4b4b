"""How far real optimizers move a parameter, update by update."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import SGD, Optimizer

Make = Callable[[list[nn.Parameter]], Optimizer]


def moved_by(
    make: Make, rates: Sequence[float], gradients: Sequence[float], dims: int = 1
) -> float:
    """Return how far an optimizer moves a parameter of 1 under a row of gradients."""
    parameter = nn.Parameter(torch.ones([1] * dims, dtype=torch.float64))
    optimizer = make([parameter])
    for rate, gradient in zip(rates, gradients, strict=True):
        for group in optimizer.param_groups:
            group['lr'] = float(rate)
        parameter.grad = torch.full_like(parameter, float(gradient))
        optimizer.step()
    return 1 - parameter.item()


def moved_by_sgd(
    rates: Sequence[float], gradients: Sequence[float], momentum: float, **options: Any
) -> float:
    """Return how far SGD moves a parameter under a row of gradients."""
    return moved_by(lambda p: SGD(p, lr=1.0, momentum=momentum, **options), rates, gradients)


def pulled_to_zero(start: float, strength: float, rates: Sequence[float], momentum: float) -> float:
    """Return where SGD brings a parameter that only an L1 penalty acts on."""
    parameter = nn.Parameter(torch.tensor([start], dtype=torch.float64))
    optimizer = SGD([parameter], lr=1.0, momentum=momentum)
    for rate in rates:
        optimizer.param_groups[0]['lr'] = rate
        optimizer.zero_grad()
        (strength * parameter.abs().sum()).backward()
        optimizer.step()
    return parameter.item()
