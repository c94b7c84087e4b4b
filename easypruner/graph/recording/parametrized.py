"""Parametrized weights: weights that a layer computes from other tensors before it uses them.

Torch has two ways. In ``torch.nn.utils.parametrizations`` the other tensors are under
``<layer>.parametrizations.<weight>``. The older functions add a hook, which sets an attribute.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import _SpectralNorm, _WeightNorm
from torch.nn.utils.parametrize import ParametrizationList
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from easypruner.base.modules import evaluating
from easypruner.graph.recording.inventory import (
    Inventory,
    dotted_name,
    modules_of,
    named_tensors,
)

_HOOKS = (WeightNorm, SpectralNorm, BasePruningMethod)
_SOURCES = ('_v', '_orig')
_PARTS = ('_g', '_v', '_orig', '_mask')


@dataclass(frozen=True)
class Normed:
    """A weight under weight norm: ``length * direction / |direction|``.

    Attributes:
        length: the dotted name of the lengths (``original0``, ``weight_g``).
        direction: the dotted name of the directions (``original1``, ``weight_v``).
        dim: the dimension along which lengths differ; -1 if there is one length.
    """

    length: str
    direction: str
    dim: int

    def ratio(self, length: Tensor, direction: Tensor) -> Tensor:
        """Return the factor by which the weight is larger than its direction."""
        return length / torch.norm_except_dim(direction, 2, self.dim)

    def rescaled(self, ratio: Tensor, direction: Tensor) -> Tensor:
        """Return the lengths with which the weight is ``ratio`` times as large as its direction."""
        return ratio * torch.norm_except_dim(direction, 2, self.dim)


def weight_norms(modules: Mapping[str, nn.Module]) -> Iterator[Normed]:
    """Yield the weights of modules that are under weight norm."""
    normed = any(issubclass(kind, _WeightNorm) for kind in set(map(type, modules.values())))
    for path, module in modules.items():
        if normed and isinstance(module, _WeightNorm):
            owner = path.rpartition('.')[0]
            yield Normed(f'{owner}.original0', f'{owner}.original1', module.dim)
        if module._forward_pre_hooks:
            for hook in module._forward_pre_hooks.values():
                if isinstance(hook, WeightNorm):
                    name = dotted_name(path, hook.name)
                    yield Normed(f'{name}_g', f'{name}_v', hook.dim)


@dataclass(frozen=True, eq=False)
class Computed:
    """A weight that a layer computes from other tensors.

    Attributes:
        name: the dotted name of the weight.
        layer: the module that uses the weight.
        maker: the ``ParametrizationList``, or the hook of the layer, that computes the weight.
        sources: dotted name -> tensor from which the weight is computed.
    """

    name: str
    layer: nn.Module
    maker: Any
    sources: Mapping[str, Tensor]

    @torch.no_grad()
    def value(self) -> Tensor:
        """Return the weight in evaluation mode, computed from the present sources."""
        # The attribute that a hook has set is that of the last forward pass.
        if isinstance(self.maker, WeightNorm):
            weight = self.maker.compute_weight(self.layer)
        elif isinstance(self.maker, SpectralNorm):
            weight = self.maker.compute_weight(self.layer, do_power_iteration=False)
        elif isinstance(self.maker, BasePruningMethod):
            weight = self.maker.apply_mask(self.layer)  # type: ignore[no-untyped-call]
        else:
            weight = _compute(self.maker, {})
        return weight.detach()

    def dim_of(self, source: str, dim: int) -> int | None:
        """Return the dimension of the weight that has the indices of a dimension of a source.

        None if there is no such dimension, as for one over which a product sums.
        """
        if not isinstance(self.maker, ParametrizationList) or _is_weight_norm(self.maker):
            return dim
        tensor = self.sources[source]
        if any(map(_is_spectral, self.maker.children())):  # any index changes the whole weight
            return dim
        reached = self._dim_reached(tensor, dim)
        return self._dim_cut(tensor, dim) if reached is None else reached

    def _dim_reached(self, tensor: Tensor, dim: int) -> int | None:
        """Return the dimension in which some indices of a source reach the same indices only."""
        size = tensor.shape[dim]
        if not tensor.is_floating_point():
            return None
        marked = torch.arange(size, device=tensor.device) < (size + 1) // 2
        poisoned = tensor.detach().clone()
        poisoned.movedim(dim, 0)[marked] = float('nan')
        weight = _compute(self.maker, dict.fromkeys(self._own_names(tensor), poisoned))
        for candidate in sorted(range(weight.dim()), key=lambda candidate: candidate != dim):
            if weight.shape[candidate] == size:
                others = [other for other in range(weight.dim()) if other != candidate]
                reached = weight.isnan().sum(dim=others) if others else weight.isnan()
                if torch.equal(reached > 0, marked):
                    return candidate
        return None

    def _dim_cut(self, tensor: Tensor, dim: int) -> int | None:
        """Return the dimension that gets shorter with that of a source, as one under a norm."""
        shape = torch.Size(size - (i == dim) for i, size in enumerate(tensor.shape))
        try:
            cut = _compute_shape(self.maker, dict.fromkeys(self._own_names(tensor), shape))
        except RuntimeError:
            return None
        whole = _compute_shape(self.maker, {})
        sizes = zip(whole, cut, strict=True)
        lost = [i for i, (size, less) in enumerate(sizes) if size == less + 1]
        return lost[0] if len(lost) == 1 and whole[lost[0]] == tensor.shape[dim] else None

    def _own_names(self, tensor: Tensor) -> list[str]:
        """Return the names of a source in the list of parametrizations."""
        return [name for name, own in named_tensors(self.maker).items() if own is tensor]

    def substitute(self, weight: Tensor) -> None:
        """Let the layer use another tensor as its weight, until its attributes are restored."""
        if isinstance(self.maker, ParametrizationList):
            vars(self.maker)['forward'] = lambda: weight
            return
        hooks = self.layer._forward_pre_hooks.items()
        self.layer._forward_pre_hooks = OrderedDict((k, h) for k, h in hooks if h is not self.maker)
        setattr(self.layer, self.name.rpartition('.')[2], weight)


def computed_weights(model: nn.Module) -> dict[str, Computed]:
    """Return dotted name -> weight, for all computed weights of a model."""
    made = [
        (dotted_name(path, local), layer, maker, tensors)
        for path, layer in modules_of(model).items()
        if layer._forward_pre_hooks or 'parametrizations' in layer._modules
        for local, maker, tensors in _makers(layer)
    ]
    if not made:
        return {}
    names = {id(tensor): name for name, tensor in Inventory(model).tensors.items()}
    return {
        name: Computed(name, layer, maker, {names[id(t)]: t for t in tensors if id(t) in names})
        for name, layer, maker, tensors in made
    }


def computed_value(layer: nn.Module, local: str) -> Tensor:
    """Return the value of a computed weight, by its name in its layer."""
    makers = {name: maker for name, maker, _ in _makers(layer)}
    return Computed(local, layer, makers[local], {}).value()


def _makers(layer: nn.Module) -> Iterator[tuple[str, Any, list[Tensor]]]:
    """Yield (local name, maker, tensors from which it is computed) of each computed weight.

    The vectors of a spectral norm are left out: they are found from the weight.
    """
    parametrizations = layer._modules.get('parametrizations')
    if isinstance(parametrizations, nn.ModuleDict):
        for local, maker in parametrizations.items():
            if isinstance(maker, ParametrizationList):
                vectors = [b for part in maker if _is_spectral(part) for b in part.buffers()]
                tensors = [*maker.parameters(), *maker.buffers()]
                yield local, maker, [t for t in tensors if not any(t is v for v in vectors)]
    for hook in layer._forward_pre_hooks.values():
        if isinstance(hook, _HOOKS):
            local = hook._tensor_name if isinstance(hook, BasePruningMethod) else hook.name
            names = ('_orig',) if isinstance(hook, SpectralNorm) else _PARTS
            parts = (getattr(layer, local + part, None) for part in names)
            yield local, hook, [part for part in parts if isinstance(part, Tensor)]


def _is_spectral(part: nn.Module) -> bool:
    return isinstance(part, _SpectralNorm)


def _is_weight_norm(maker: nn.Module) -> bool:
    return [type(part) for part in maker.children()] == [_WeightNorm]


LayerShapes = Mapping[str, Mapping[str, torch.Size]]
"""Path of a module -> local name of a tensor -> new shape."""


def with_computed(
    modules: Mapping[str, nn.Module], shapes: LayerShapes
) -> dict[str, dict[str, torch.Size]]:
    """Return ``shapes`` and the shapes of the weights that are computed from these tensors."""
    result = {path: dict(own) for path, own in shapes.items()}
    for path, own in shapes.items():
        layer = modules[path]
        for local, shape in own.items():
            if not local.endswith(_SOURCES):
                continue
            for suffix in _SOURCES:
                stem = local.removesuffix(suffix)
                made = vars(layer).get(stem) if stem != local else None
                if isinstance(made, Tensor) and made.dim() == len(shape):
                    result[path][stem] = shape
    for owner, name in dict.fromkeys(filter(None, map(_parametrized, shapes))):
        start = dotted_name(owner, f'parametrizations.{name}')
        inner = {
            f'{path}.{local}'[len(start) + 1 :]: shape
            for path, own in shapes.items()
            if path == start or path.startswith(f'{start}.')
            for local, shape in own.items()
        }
        result.setdefault(owner, {})[name] = _compute_shape(modules[start], inner)
    return result


def _parametrized(path: str) -> tuple[str, str] | None:
    """Return (layer, weight) for the path of a module that computes a weight; else None.

    >>> _parametrized('body.0.parametrizations.weight.0')
    ('body.0', 'weight')
    """
    if 'parametrizations.' not in path:
        return None
    parts = path.split('.')
    if 'parametrizations' not in parts[:-1]:
        return None
    position = parts.index('parametrizations')
    return '.'.join(parts[:position]), parts[position + 1]


@torch.no_grad()
def _compute(maker: nn.Module, tensors: Mapping[str, Tensor]) -> Tensor:
    """Return the weight that a list of parametrizations computes, from ``tensors`` where named."""
    with evaluating(maker):
        return torch.func.functional_call(maker, dict(tensors), ())


def _compute_shape(maker: nn.Module, shapes: Mapping[str, torch.Size]) -> torch.Size:
    """Return the shape of that weight if the named tensors had other shapes."""
    stand_ins = {
        name: torch.empty(shapes.get(name, tensor.shape), dtype=tensor.dtype, device='meta')
        for name, tensor in named_tensors(maker).items()
    }
    return _compute(maker, stand_ins).shape


@torch.no_grad()
def refresh(modules: Iterable[nn.Module]) -> None:
    """Compute the attributes again that hooks set before each forward pass."""
    for module in modules:
        for hook in module._forward_pre_hooks.values():
            if isinstance(hook, _HOOKS):
                hook(module, ())
