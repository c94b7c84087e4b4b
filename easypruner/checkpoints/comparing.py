"""Compares the weights of a checkpoint with those of a model, by name, shape and kind."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

_OPTIONAL = 'num_batches_tracked'


@dataclass(frozen=True)
class Comparison:
    """Which weights of a checkpoint fit a model.

    Attributes:
        fitting: the number of the model's weights that the checkpoint has.
        missing: names of the model that the checkpoint does not have.
        unexpected: names of the checkpoint that the model does not have.
        other: names of both that differ in shape or kind.
    """

    fitting: int
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    other: tuple[str, ...] = ()

    @property
    def exact(self) -> bool:
        """Whether everything fits."""
        return not (self.missing or self.unexpected or self.other)

    @property
    def wrong(self) -> tuple[str, ...]:
        """All names that do not fit."""
        return (*self.other, *self.missing, *self.unexpected)


def own_weights(model: nn.Module) -> dict[str, Any]:
    """Return the model's state dict, with the parameters themselves."""
    return dict(model.state_dict(keep_vars=True))


def compare(own: Mapping[str, Any], given: Mapping[str, Any]) -> Comparison:
    """Compare the state dict of a model with given weights.

    The counters of batch norms may be missing, and the second name of a tied weight.
    """
    tied = {id(own[name]) for name in given if name in own}
    other = tuple(n for n, tensor in given.items() if n in own and not alike(own[n], tensor))
    return Comparison(
        sum(name in given for name in own) - len(other),
        tuple(
            name
            for name, tensor in own.items()
            if name not in given and not name.endswith(_OPTIONAL) and id(tensor) not in tied
        ),
        tuple(name for name in given if name not in own),
        other,
    )


def alike(one: Any, other: Any) -> bool:
    """Return whether two weights have the same shape, and both are floating or both are not."""
    if not isinstance(one, Tensor) or not isinstance(other, Tensor):
        return not isinstance(one, Tensor) and not isinstance(other, Tensor)
    same_kind = one.is_floating_point() == other.is_floating_point()
    return same_kind and one.is_complex() == other.is_complex() and one.shape == other.shape


def complete(own: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the weights with the second names of tied weights."""
    by_weight = {id(own[name]): name for name in given if name in own}
    tied = {n: given[by_weight[id(t)]] for n, t in own.items() if id(t) in by_weight}
    return {**tied, **given}


def converted(model: nn.Module, weights: Mapping[str, Any]) -> bool:
    """Return whether the model itself can load weights that differ in name or shape from its own.

    Models of mmpretrain rename weights of older versions, or resize embeddings, while they load.
    This is tried on a copy without memory.
    """
    # A model of a user may fail in any way, in a copy as well as in its hooks.
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        try:
            tensors = (*model.parameters(), *model.buffers())
            trial = copy.deepcopy(model, {id(tensor): _on_meta(tensor) for tensor in tensors})
            on_meta = {n: v.to('meta') if isinstance(v, Tensor) else v for n, v in weights.items()}
            trial.load_state_dict(on_meta, strict=True)
        except Exception:
            return False
    return True


def _on_meta(tensor: Tensor) -> Tensor:
    there = tensor.detach().to('meta')
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(there, requires_grad=tensor.requires_grad)
    return there
