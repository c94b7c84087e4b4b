"""Penalties: what a regularizer's methods return is checked, and their gradient computed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from easypruner.base.describe import describe
from easypruner.errors import PluginError


def check_penalty(value: Any, method: str, owner: str) -> Tensor:
    """Return the penalty that a method of a regularizer has returned.

    Args:
        value: the value that it returned.
        method: the name of the method.
        owner: the name of the regularizer.

    Raises:
        PluginError: the value is not a tensor with one entry.
    """
    if not isinstance(value, Tensor) or value.numel() != 1:
        number = f' {value!r}' if isinstance(value, int | float) else ''
        raise PluginError(
            f'{method}() of {owner} returned {describe(value)}{number}; expected a tensor with one '
            'entry that has a gradient, such as self.strength * weight.abs().sum(), without .item()'
        )
    return value


def penalty_gradients(
    penalty: Tensor, parameters: Sequence[Tensor], owner: str
) -> Sequence[Tensor | None]:
    """Return the gradient of a penalty for each parameter; None where it does not depend on it.

    Raises:
        PluginError: the penalty does not depend on any parameter.
    """
    if not penalty.requires_grad:
        raise PluginError(
            f'penalty() of {owner} returned a tensor without a gradient, so it pushes nothing; '
            'compute it from parameters of graph.model, without .data, .detach(), .item() or '
            'torch.no_grad()'
        )
    return torch.autograd.grad(penalty.reshape(()), parameters, allow_unused=True)
