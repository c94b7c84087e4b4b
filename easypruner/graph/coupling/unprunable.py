"""What stays whatever the tape says: weights of which a part is no weight of the same kind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import nn
from torch.nn.utils.parametrizations import _Orthogonal, _SpectralNorm
from torch.nn.utils.parametrize import ParametrizationList
from torch.nn.utils.spectral_norm import SpectralNorm

_SPECTRAL = 'spectral norm divides by a number that all of the weight decides'
_ORTHOGONAL = 'an orthogonal weight is made of all its rows and columns together'
_PROJECTED = "torch tells an LSTM with a projection by a hidden size that is not the projection's"


def held(modules: Mapping[str, nn.Module]) -> dict[tuple[str, int], str]:
    """Return (parameter or buffer, dim) -> reason for what cannot lose anything."""
    found: dict[tuple[str, int], str] = {}
    for path, module in modules.items():
        for prefix, reason in _reasons(module):
            found |= _whole(module, path, prefix, reason)
        if isinstance(module, nn.LSTM) and module.proj_size:
            start = f'{path}.' if path else ''
            names = [name for name, _ in module.named_parameters() if 'weight_hr' in name]
            found |= {(start + name, 1): _PROJECTED for name in names}
    return found


def _reasons(module: nn.Module) -> Iterator[tuple[str, str]]:
    """Yield (beginning of the names of tensors, reason why these stay)."""
    if isinstance(module, ParametrizationList):
        for part in module.children():
            if isinstance(part, _SpectralNorm):
                yield '', _SPECTRAL
            elif isinstance(part, _Orthogonal):
                yield '', _ORTHOGONAL
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, SpectralNorm):
            yield f'{hook.name}_', _SPECTRAL


def _whole(module: nn.Module, path: str, prefix: str, reason: str) -> dict[tuple[str, int], str]:
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    start = f'{path}.' if path else ''
    return {
        (start + name, dim): reason
        for name, tensor in tensors.items()
        if name.startswith(prefix)
        for dim in range(tensor.dim())
    }
