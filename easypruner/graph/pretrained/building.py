"""Builds the network that a config describes, without its weights, and compares it with another."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from easypruner.base.randomness import fixed_seed
from easypruner.graph.pretrained.config_keys import reread
from easypruner.graph.recording.config_numbers import numbers_of

_LIBRARY = 'transformers.modeling_utils'
_COMPARED = (int, float, str, bool, list, tuple, type(None))
_OWN = frozenset({'training', 'name_or_path', 'save_pretrained'})
"""Attributes that do not belong to the architecture."""


_FILLS = frozenset({
    'normal_', 'uniform_', 'trunc_normal_', 'kaiming_uniform_', 'kaiming_normal_',
    'xavier_uniform_', 'xavier_normal_', 'zero_', 'zeros_', 'ones_', 'fill_', 'constant_',
})  # fmt: skip
"""Functions that give a weight its first values."""


class _EmptyOnMeta(TorchFunctionMode):
    """Weights are allocated on the meta device; tables that code computes are real.

    What would fill a weight is left out: on the meta device it takes half of the time of a build.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.empty:
            kwargs['device'] = 'meta'
        elif getattr(func, '__name__', '') in _FILLS:
            filled = args[0] if args else kwargs.get('tensor')
            if isinstance(filled, Tensor) and filled.is_meta:
                return filled
        return func(*args, **kwargs)


def find_pretrained(model: nn.Module, nested: bool = False) -> dict[str, Any]:
    """Return path -> network of Hugging Face, for those in a model.

    Args:
        model: the model.
        nested: whether to return networks inside of others as well.
    """
    library: Any = sys.modules.get(_LIBRARY)
    if library is None:
        return {}
    found: dict[str, Any] = {}
    for path, module in model.named_modules():
        inside = any(not outer or path.startswith(f'{outer}.') for outer in found)
        if isinstance(module, library.PreTrainedModel) and (nested or not inside):
            found[path] = module
    return found


def has_pretrained(modules: Iterable[nn.Module]) -> bool:
    """Return whether one of some modules is a network of Hugging Face."""
    library: Any = sys.modules.get(_LIBRARY)
    return library is not None and any(
        issubclass(kind, library.PreTrainedModel) for kind in set(map(type, modules))
    )


def build_empty(kind: Any, config: Any) -> nn.Module:
    """Return a network of a class, as a config describes it after a reload, without weights.

    Raises:
        Exception: whatever the class raises for the config.
    """
    again = reread(config)
    with fixed_seed(0), torch.inference_mode(False), _EmptyOnMeta():
        built = kind(again)
    assert isinstance(built, nn.Module)
    return built


@dataclass(frozen=True)
class Difference:
    """Something that differs between a network and the one that a config describes.

    Attributes:
        name: the dotted name of the tensor or attribute.
        dim: the dimension of the tensor; None for anything else.
        built: what the config describes.
        wanted: what the network has.
        missing: whether one of both does not have the tensor, or has it with other dimensions.
    """

    name: str
    dim: int | None
    built: Any
    wanted: Any
    missing: bool = False

    @property
    def key(self) -> tuple[str, int | None, str]:
        """What tells it from others: tensors cannot be compared by ``==``."""
        return self.name, self.dim, repr(self.built)


def compare(
    network: nn.Module, built: nn.Module, base: nn.Module, cut: set[str]
) -> list[Difference]:
    """Return the differences between a network and the one that a config describes.

    Attributes and tables that a user has changed are left out: those that no cut has changed, and
    that do not depend on the numbers of the config.

    Args:
        network: the network.
        built: the one that the config describes.
        base: the one that the config described before.
        cut: the dotted names of attributes that cuts have set.
    """
    found = list(_shapes(network, built))
    if any(difference.missing for difference in found):
        return found
    parts, before = dict(built.named_modules()), dict(base.named_modules())
    for path, module in network.named_modules():
        other, old = parts.get(path), before.get(path)
        if other is not None and old is not None and type(other) is type(module):
            found += _values(path, module, other, old, cut)
    return found


def stale_numbers(network: nn.Module, built: nn.Module) -> Iterator[tuple[tuple[str, str], Any]]:
    """Yield (path, attribute), value for each number in a network that is not as it is built."""
    parts = dict(built.named_modules())
    for path, module in network.named_modules():
        other = parts.get(path)
        if type(other) is type(module):
            for name, value in vars(other).items():
                own = vars(module).get(name)
                if _is_own(name) and numbers_of(value) and numbers_of(own) and own != value:
                    yield (path, name), value


def _shapes(network: nn.Module, built: nn.Module) -> Iterator[Difference]:
    """Yield the differences of shapes, or only those of names if there are some."""
    own, other = _tensors(network), _tensors(built)
    for name in sorted(own.keys() ^ other.keys()):
        yield Difference(name, None, other.get(name), own.get(name), missing=True)
    for name in own.keys() & other.keys():
        if len(own[name]) != len(other[name]):
            yield Difference(name, None, other[name], own[name], missing=True)
    if own.keys() == other.keys():
        for name, shape in own.items():
            for dim, (size, wanted) in enumerate(zip(other[name], shape, strict=False)):
                if size != wanted:
                    yield Difference(name, dim, size, wanted)


def _tensors(network: nn.Module) -> dict[str, tuple[int, ...]]:
    named = [
        *network.named_parameters(remove_duplicate=False),
        *network.named_buffers(remove_duplicate=False),
    ]
    return {name: tuple(tensor.shape) for name, tensor in named}


def _is_own(name: str) -> bool:
    return not name.startswith('_') and name not in _OWN


def _values(
    path: str, module: nn.Module, built: nn.Module, base: nn.Module, cut: set[str]
) -> Iterator[Difference]:
    """Yield the differences of attributes and of tables that are not saved."""
    for name, value in vars(built).items():
        dotted = f'{path}.{name}' if path else name
        own, old = vars(module).get(name), vars(base).get(name)
        if not _is_own(name) or not isinstance(value, _COMPARED) or not isinstance(own, _COMPARED):
            continue
        if own == value or _is_stale_number(own, value, dotted in cut):
            continue
        if dotted in cut or old != value:
            yield Difference(dotted, None, value, own)
    tables = {n: b for n, b in module._buffers.items() if n in module._non_persistent_buffers_set}
    tables |= {n: t for n, t in vars(module).items() if isinstance(t, Tensor)}
    for name, table in tables.items():
        value, old = getattr(built, name, None), getattr(base, name, None)
        if not same(table, value) and not same(old, value):
            yield Difference(f'{path}.{name}' if path else name, None, value, table)


def _is_stale_number(own: Any, value: Any, is_cut: bool) -> bool:
    """Return whether an attribute is a whole number that no cut has set; it can follow."""
    return not is_cut and bool(numbers_of(own)) and bool(numbers_of(value))


def same(a: Any, b: Any) -> bool:
    """Return whether two tensors, or None, have the same values, as far as these are known."""
    if not isinstance(a, Tensor) or not isinstance(b, Tensor):
        return a is b
    if a.shape != b.shape:
        return False
    if a.is_meta or b.is_meta:
        return True
    return torch.allclose(a.detach().cpu().double(), b.detach().cpu().double(), equal_nan=True)
