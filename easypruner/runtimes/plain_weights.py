"""Plain weights: those that layers compute from other tensors are computed once."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.utils.parametrize import is_parametrized, remove_parametrizations

from easypruner.base.modules import copy_of, evaluating


def with_plain_weights(network: nn.Module) -> nn.Module:
    """Return a copy of a network without the parametrizations of torch, or the network itself.

    A parametrization, such as an orthogonal weight, serves training. Runtimes would compute it in
    each pass, and not all of them know its operations.

    Args:
        network: the network; it does not change.
    """
    if not any(is_parametrized(module) for module in network.modules()):
        return network
    plain = copy_of(network)
    # In training mode, spectral norm would change its vectors.
    with evaluating(plain):
        for module in list(plain.modules()):
            if is_parametrized(module):
                _make_plain(module)
    return plain


def _make_plain(module: Any) -> None:
    # The class has the weight as a property. A copied module shares it with the original, and to
    # remove a parametrization deletes the property.
    shared = type(module)
    module.__class__ = type(shared.__name__, shared.__bases__, dict(vars(shared)))
    for name in list(module.parametrizations):
        remove_parametrizations(module, name, leave_parametrized=True)
