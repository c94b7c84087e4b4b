"""Parametrized weights: those that are computed from other tensors before they are used.

Both ways of torch are covered: ``torch.nn.utils.parametrizations``, where the tensors lie under
``<layer>.parametrizations.<weight>``, and the older hooks, which set a plain attribute.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import _WeightNorm
from torch.nn.utils.parametrize import ParametrizationList
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from easypruner.base.modules import evaluating
from easypruner.graph.recording.inventory import Inventory

_HOOKS = (WeightNorm, SpectralNorm, BasePruningMethod)
_SOURCES = ('_v', '_orig')
_PARTS = ('_g', '_v', '_orig', '_mask', '_u')


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


@dataclass(frozen=True, eq=False)
class Computed:
    """A weight that a layer computes from other tensors before it uses it.

    Attributes:
        name: dotted name of the weight.
        layer: the module that uses it.
        maker: what computes it: a ``ParametrizationList``, or a hook of the layer.
        sources: dotted name -> tensor that it is computed from.
    """

    name: str
    layer: nn.Module
    maker: Any
    sources: Mapping[str, Tensor]

    @torch.no_grad()
    def value(self) -> Tensor:
        """Return the weight as it is in evaluation mode, of what its sources hold now."""
        # What a hook has set is of the last forward pass.
        if isinstance(self.maker, WeightNorm):
            weight = self.maker.compute_weight(self.layer)
        elif isinstance(self.maker, SpectralNorm):
            weight = self.maker.compute_weight(self.layer, do_power_iteration=False)
        elif isinstance(self.maker, BasePruningMethod):
            weight = self.maker.apply_mask(self.layer)  # type: ignore[no-untyped-call]
        else:
            weight = self._value_with({})
        result: Tensor = weight.detach()
        return result

    @torch.no_grad()
    def dim_of(self, source: str, dim: int) -> int | None:
        """Return the dimension of the weight whose indices are those of one of a source.

        None if there is none, as for what is summed over in a product.
        """
        if not isinstance(self.maker, ParametrizationList) or _is_weight_norm(self.maker):
            return dim
        place = self._dim_reached(self.sources[source], dim)
        return self._dim_cut(self.sources[source], dim) if place is None else place

    def _dim_reached(self, tensor: Tensor, dim: int) -> int | None:
        """Return the dimension where what becomes of some indices of a source stays at these."""
        size = tensor.shape[dim]
        if not tensor.is_floating_point():
            return None
        marked = torch.arange(size, device=tensor.device) < (size + 1) // 2
        poisoned = tensor.detach().clone()
        poisoned.movedim(dim, 0)[marked] = float('nan')
        weight = self._value_with({id(tensor): poisoned})
        for place in sorted(range(weight.dim()), key=lambda place: place != dim):
            if weight.shape[place] == size:
                others = [other for other in range(weight.dim()) if other != place]
                reached = weight.isnan().sum(dim=others) if others else weight.isnan()
                if torch.equal(reached > 0, marked):
                    return place
        return None

    def _dim_cut(self, tensor: Tensor, dim: int) -> int | None:
        """Return the dimension that loses an index with a source, as one that a norm is over."""
        shape = [size - (place == dim) for place, size in enumerate(tensor.shape)]
        names = [name for name, own in self._own_sources() if own is tensor]
        try:
            cut = _computed_shape(self.maker, {name: torch.Size(shape) for name in names})
        except RuntimeError:
            return None
        whole = self._value_with({}).shape
        sizes = zip(whole, cut, strict=True)
        lost = [place for place, (size, less) in enumerate(sizes) if size == less + 1]
        return lost[0] if len(lost) == 1 and whole[lost[0]] == tensor.shape[dim] else None

    def hold(self, weight: Tensor) -> None:
        """Let the layer use another tensor, until the attributes of modules are put back."""
        if isinstance(self.maker, ParametrizationList):
            vars(self.maker)['forward'] = lambda: weight
            return
        hooks = self.layer._forward_pre_hooks.items()
        self.layer._forward_pre_hooks = OrderedDict((k, h) for k, h in hooks if h is not self.maker)
        setattr(self.layer, self.name.rpartition('.')[2], weight)

    def _own_sources(self) -> list[tuple[str, Tensor]]:
        """Return the sources under the names that they have in the list of parametrizations."""
        return [*self.maker.named_parameters(), *self.maker.named_buffers()]

    def _value_with(self, others: Mapping[int, Tensor]) -> Tensor:
        """Return the weight with other tensors in place of some sources, by their ids."""
        own = self._own_sources()
        tensors = {name: others[id(tensor)] for name, tensor in own if id(tensor) in others}
        with evaluating(self.maker):
            weight: Tensor = torch.func.functional_call(self.maker, tensors, ())
        return weight


def computed_weights(model: nn.Module) -> dict[str, Computed]:
    """Return dotted name -> weight, of those in a model that are computed from other tensors."""
    met = [(path, *found) for path, layer in model.named_modules() for found in _makers(layer)]
    if not met:
        return {}
    names = {id(tensor): name for name, tensor in Inventory(model).tensors.items()}
    found = {}
    for path, local, layer, maker, tensors in met:
        name = f'{path}.{local}' if path else local
        sources = {names[id(tensor)]: tensor for tensor in tensors if id(tensor) in names}
        found[name] = Computed(name, layer, maker, sources)
    return found


def computed_value(layer: nn.Module, local: str) -> Tensor:
    """Return the value of a computed weight by its name in its layer."""
    makers = {name: maker for name, _, maker, _ in _makers(layer)}
    return Computed(local, layer, makers[local], {}).value()


def _makers(layer: nn.Module) -> Iterator[tuple[str, nn.Module, Any, list[Tensor]]]:
    """Yield (local name, layer, what computes it, from what) of each computed weight."""
    parametrizations = layer._modules.get('parametrizations')
    if isinstance(parametrizations, nn.ModuleDict):
        for local, maker in parametrizations.items():
            if isinstance(maker, ParametrizationList):
                yield local, layer, maker, [*maker.parameters(), *maker.buffers()]
    for hook in layer._forward_pre_hooks.values():
        if isinstance(hook, _HOOKS):
            local = hook._tensor_name if isinstance(hook, BasePruningMethod) else hook.name
            held = (getattr(layer, local + part, None) for part in _PARTS)
            yield local, layer, hook, [tensor for tensor in held if isinstance(tensor, Tensor)]


def _is_weight_norm(maker: nn.Module) -> bool:
    return [type(part) for part in maker.children()] == [_WeightNorm]


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
