"""Parametrized weights: those that are computed from other tensors before they are used.

Both ways of torch are covered: ``torch.nn.utils.parametrizations``, where the tensors lie under
``<layer>.parametrizations.<weight>``, and the older hooks, which set a plain attribute.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import _WeightNorm
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

_HOOKS = (WeightNorm, SpectralNorm, BasePruningMethod)
_SOURCES = ('_v', '_orig')


@dataclass(frozen=True)
class Normed:
    """A weight that is a direction, brought to a length: ``length * direction / |direction|``.

    Attributes:
        length: dotted name of the lengths (``original0``, ``weight_g``).
        direction: dotted name of the directions (``original1``, ``weight_v``).
        dim: the dimension along which there are several lengths; -1 where there is one.
    """

    length: str
    direction: str
    dim: int

    def ratio(self, length: Tensor, direction: Tensor) -> Tensor:
        """Return what directions are multiplied with."""
        return length / torch.norm_except_dim(direction, 2, self.dim)

    def rescaled(self, ratio: Tensor, direction: Tensor) -> Tensor:
        """Return the lengths under which ``direction`` is multiplied with ``ratio``."""
        return ratio * torch.norm_except_dim(direction, 2, self.dim)


def weight_norms(modules: Mapping[str, nn.Module]) -> Iterator[Normed]:
    """Yield the weights among ``modules`` that have weight norm."""
    for path, module in modules.items():
        if isinstance(module, _WeightNorm):
            owner = path.rpartition('.')[0]
            yield Normed(f'{owner}.original0', f'{owner}.original1', module.dim)
        for hook in module._forward_pre_hooks.values():
            if isinstance(hook, WeightNorm):
                name = f'{path}.{hook.name}' if path else hook.name
                yield Normed(f'{name}_g', f'{name}_v', hook.dim)


Shapes = Mapping[str, Mapping[str, torch.Size]]
"""Module path -> local name -> new shape."""


def with_computed(
    modules: Mapping[str, nn.Module], shapes: Shapes
) -> dict[str, dict[str, torch.Size]]:
    """Return ``shapes`` with those of the weights that are computed from the tensors they name."""
    result = {path: dict(own) for path, own in shapes.items()}
    for path, own in shapes.items():
        layer = modules[path]
        for local, shape in own.items():
            for suffix in _SOURCES:
                stem = local.removesuffix(suffix)
                if stem != local and isinstance(vars(layer).get(stem), Tensor):
                    result[path][stem] = shape
    for owner, name in dict.fromkeys(filter(None, map(_parametrized, shapes))):
        start = f'{owner}.parametrizations.{name}' if owner else f'parametrizations.{name}'
        inner = {
            f'{path}.{local}'[len(start) + 1 :]: shape
            for path, own in shapes.items()
            if path == start or path.startswith(f'{start}.')
            for local, shape in own.items()
        }
        parametrization = modules[start]
        result.setdefault(owner, {})[name] = _computed_shape(parametrization, inner)
    return result


def _parametrized(path: str) -> tuple[str, str] | None:
    """Return the layer and the name of the weight that a path inside its computation belongs to.

    >>> _parametrized('body.0.parametrizations.weight.0')
    ('body.0', 'weight')
    """
    parts = path.split('.')
    if 'parametrizations' not in parts[:-1]:
        return None
    place = parts.index('parametrizations')
    return '.'.join(parts[:place]), parts[place + 1]


def _computed_shape(parametrization: nn.Module, shapes: Mapping[str, torch.Size]) -> torch.Size:
    tensors = {
        **dict(parametrization.named_parameters()),
        **dict(parametrization.named_buffers()),
    }
    stand_ins = {
        name: torch.empty(shapes.get(name, tensor.shape), dtype=tensor.dtype, device='meta')
        for name, tensor in tensors.items()
    }
    with torch.no_grad():
        weight = torch.func.functional_call(parametrization, stand_ins, ())
    shape: torch.Size = weight.shape
    return shape


@torch.no_grad()
def refresh(modules: Iterable[nn.Module]) -> None:
    """Compute the plain attributes anew that hooks set before every forward pass."""
    for module in modules:
        for hook in module._forward_pre_hooks.values():
            if isinstance(hook, _HOOKS):
                hook(module, ())
