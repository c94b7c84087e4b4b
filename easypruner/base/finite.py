"""Finite numbers: which tensors of a network contain NaN or infinite entries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn


@torch.no_grad()
def norms_of(tensors: Sequence[Tensor]) -> Tensor:
    """Return the norm of each tensor, without waiting for the device.

    It is not finite if an entry is not, or if the entries are so large that their squares are not.
    Empty, sparse and integer tensors are left out.
    """
    rows = [tensor.detach() for tensor in tensors if _is_read(tensor)]
    if not rows:
        return torch.zeros(0)
    # Much faster than the largest magnitude.
    norms = torch._foreach_norm(rows)
    return torch.stack([norm.to(norms[0].device) for norm in norms])


def not_finite(model: nn.Module) -> list[str]:
    """Return the names of parameters with NaN or infinite entries, and of buffers with NaN.

    A buffer may contain infinity on purpose, such as the mask of an attention.
    """
    parameters = not_finite_in(dict(model.named_parameters()))
    return parameters + not_finite_in(dict(model.named_buffers()), infinite=False)


def not_finite_in(tensors: Mapping[str, Tensor], infinite: bool = True) -> list[str]:
    """Return the names of tensors with NaN or infinite entries.

    Args:
        tensors: name -> tensor.
        infinite: whether infinite entries count; otherwise, only NaN does.
    """
    read = {name: tensor for name, tensor in tensors.items() if _is_read(tensor)}
    are_fine = torch.isfinite(norms_of(list(read.values()))).tolist()
    suspects = [name for name, is_fine in zip(read, are_fine, strict=True) if not is_fine]
    return [name for name in suspects if _is_bad(read[name], infinite)]


def _is_bad(tensor: Tensor, infinite: bool) -> bool:
    is_bad = ~torch.isfinite(tensor) if infinite else torch.isnan(tensor)
    return bool(is_bad.any())


def _is_read(tensor: Tensor) -> bool:
    strided = tensor.layout is torch.strided and tensor.device.type != 'meta'
    return strided and tensor.is_floating_point() and tensor.numel() > 0
