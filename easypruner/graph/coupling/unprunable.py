"""Unprunable dimensions: weights that would not be weights of their kind without a part."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import nn
from torch.nn.utils.parametrizations import _Orthogonal, _SpectralNorm
from torch.nn.utils.parametrize import ParametrizationList
from torch.nn.utils.spectral_norm import SpectralNorm

from easypruner.graph.coupling.axes import Dim

_SPECTRAL = 'spectral norm divides by a number that the whole weight decides'
_ORTHOGONAL = 'an orthogonal weight is made of all its rows and columns together'
_PROJECTED = "torch tells an LSTM with a projection by a hidden size that is not the projection's"


def find_unprunable(modules: Mapping[str, nn.Module]) -> dict[Dim, str]:
    """Return dimension of a parameter or buffer -> the reason for which all its indices stay."""
    found: dict[Dim, str] = {}
    for path, module in modules.items():
        for prefix, reason in _reasons(module):
            found |= _all_dimensions(module, path, prefix, reason)
        if isinstance(module, nn.LSTM) and module.proj_size:
            start = f'{path}.' if path else ''
            names = [name for name, _ in module.named_parameters() if 'weight_hr' in name]
            found |= {(start + name, 1): _PROJECTED for name in names}
    return found


def _reasons(module: nn.Module) -> Iterator[tuple[str, str]]:
    """Yield (how names of tensors start, the reason for which these tensors stay whole)."""
    if isinstance(module, ParametrizationList):
        for part in module.children():
            if isinstance(part, _SpectralNorm):
                yield '', _SPECTRAL
            elif isinstance(part, _Orthogonal):
                yield '', _ORTHOGONAL
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, SpectralNorm):
            yield f'{hook.name}_', _SPECTRAL


def _all_dimensions(module: nn.Module, path: str, prefix: str, reason: str) -> dict[Dim, str]:
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    start = f'{path}.' if path else ''
    return {
        (start + name, dim): reason
        for name, tensor in tensors.items()
        if name.startswith(prefix)
        for dim in range(tensor.dim())
    }
