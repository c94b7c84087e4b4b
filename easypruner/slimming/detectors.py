"""Models of Ultralytics, such as ``YOLO``: their network is pruned, and they train it as it is."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from torch import nn

from easypruner.base.modules import is_wrapper
from easypruner.errors import ConfigError


def with_network(model: nn.Module, network: nn.Module) -> nn.Module:
    """Return a copy of what wraps a network, around another one; or the other one itself.

    Training of Ultralytics builds a network from its yaml file, in the original widths. The copy
    trains ``network``, in which all other calls are those of its class.

    Args:
        model: a ``YOLO`` or another model of Ultralytics; or a network, which wraps nothing.
        network: the network of the copy.
    """
    if not is_wrapper(model, 'ultralytics'):
        return network
    base = type(model)
    kept: Any = (
        base if issubclass(base, _KeepsNetwork) else type(base.__name__, (_KeepsNetwork, base), {})
    )
    result: Any = kept.__new__(kept)
    vars(result).update(vars(model))
    result._modules = {**model._modules, 'model': network}
    result.callbacks = {event: list(calls) for event, calls in result.callbacks.items()}
    result.overrides = dict(result.overrides)
    # With a checkpoint, train() starts with the weights of the model.
    result.ckpt, result.ckpt_path = {'model': network}, None
    result.predictor = result.trainer = result.metrics = None
    return result


def evaluating_like(
    model: nn.Module, evaluate: Callable[[nn.Module], float] | None
) -> Callable[[nn.Module], float] | None:
    """Return a function that evaluates a network inside what wraps the original one."""
    if evaluate is None or not is_wrapper(model, 'ultralytics'):
        return evaluate
    # A validation changes the network that it gets, for example fuses its layers.
    return lambda network: evaluate(with_network(model, copy.deepcopy(network)))


class _KeepsNetwork:
    """A model of Ultralytics that trains its network in the widths that it has."""

    model: nn.Module

    def train(self, trainer: Any = None, **kwargs: Any) -> Any:
        """Train the network, as the class of Ultralytics does."""
        if isinstance(trainer, bool):  # nn.Module.train(mode)
            return super().train(trainer, **kwargs)  # type: ignore[misc]
        own: Any = super()
        chosen = trainer or self._smart_load('trainer')  # type: ignore[attr-defined]
        return own.train(trainer=_keeping(chosen, self.model), **kwargs)


def _keeping(trainer: type, network: nn.Module) -> type:
    """Return a class of trainers that train a network instead of one that they build."""

    class Keeping(trainer):
        def get_model(self, cfg: Any = None, weights: Any = None, verbose: bool = True) -> Any:
            """Return a copy of the network, with the weights that it has or resumes from."""
            if _shapes(weights) != _shapes(network):
                raise ConfigError(
                    'a pruned network trains on with its own weights; leave out pretrained=, or '
                    'prune the network that has those weights'
                )
            classes = getattr(network, 'yaml', {}).get('nc')
            if classes not in (None, self.data['nc']):
                raise ConfigError(
                    f'the data has {self.data["nc"]} classes, and the pruned network {classes}; '
                    'train the full network on the data first, and prune it then'
                )
            kept = copy.deepcopy(weights)
            kept.criterion = None
            for parameter in kept.parameters():
                parameter.requires_grad = True
            return kept

    Keeping.__name__ = Keeping.__qualname__ = trainer.__name__
    return Keeping


def _shapes(network: Any) -> Any:
    if not isinstance(network, nn.Module):
        return None
    return {name: tensor.shape for name, tensor in network.state_dict().items()}
