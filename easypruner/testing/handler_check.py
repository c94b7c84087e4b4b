"""The check of layer handlers: they have to set all attributes that a cut changes."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from easypruner.graph.cutting.handles import find_handler
from easypruner.graph.recording.config_numbers import numbers_of
from easypruner.graph.recording.inventory import Attributes, Inventory
from easypruner.graph.recording.parametrized import with_computed
from easypruner.graph.recording.tape import ExampleInputs, call_arguments
from easypruner.slimming import prune, trace, verify
from easypruner.strategies import LayerHandler
from easypruner.testing.checks import random_masks

_OWN = ('_parameters', '_buffers', '_modules')
_COUNTED = 'groups'


def check_handler(
    handler: LayerHandler | Sequence[LayerHandler], model: nn.Module, inputs: ExampleInputs
) -> dict[str, Any]:
    """Cut a network with random masks and a layer handler, and run it.

    The handler has to be used, and it has to set all numbers of its layers that a cut changes,
    including numbers that the trial of a cut would correct without a handler.

    Args:
        handler: one or several handlers, in order of precedence; each of them has to be used.
        model: a network with layers of the handlers; it is cut in place.
        inputs: the inputs of the network.

    Returns:
        path -> module of the pruned network, for checks of attributes.

    Raises:
        AssertionError: no channel can be removed, the pruned network has wrong outputs, or a
            handler is not used, changes nothing or sets a wrong number.
    """
    handlers = [handler] if isinstance(handler, LayerHandler) else list(handler)
    graph = trace(model, inputs, handlers)
    masks = random_masks(graph, keep=0.5)
    reasons = '; '.join({frozen.reason: None for frozen in graph.frozen})
    kind = type(model).__name__
    assert masks.removed_units, f'no channel of this {kind} can be removed: {reasons}'
    found = verify(model, masks, inputs, handlers)
    assert found.passed, f'verify finds an error of {found.error}'
    alone = copy.deepcopy(model)
    known = graph.attributes(masks)
    prune(model, masks, graph=graph)
    _check_numbers(alone, model, handlers, known)
    args, kwargs = call_arguments(inputs)
    with torch.no_grad():
        model(*args, **kwargs)
    return dict(model.named_modules())


def _check_numbers(
    alone: nn.Module, pruned: nn.Module, handlers: Sequence[LayerHandler], known: Attributes
) -> None:
    """Check the numbers that handlers set in a copy of the network before the cut."""
    layers, after = Inventory(alone), dict(pruned.named_modules())
    new = Inventory(pruned).tensors
    resized = {n: new[n].shape for n, old in layers.tensors.items() if new[n].shape != old.shape}
    for (path, name), value in known.items():
        # The channel graph sets the groups of convolutions before it calls handlers.
        if name == _COUNTED:
            setattr(layers.modules[path], name, value)
    used: dict[int, list[str]] = {id(handler): [] for handler in handlers}
    changed: set[int] = set()
    for path, own in with_computed(layers.modules, layers.by_layer(resized)).items():
        layer = layers.modules[path]
        handler = find_handler(layer, handlers)
        if handler is None:
            continue
        used[id(handler)].append(path)
        before = _state_of(layer)
        handler.resize(layer, own)
        if _state_of(layer) != before:
            changed.add(id(handler))
        _check_layer(handler, layer, after[path], path)
    for handler in handlers:
        name = type(handler).__name__
        assert used[id(handler)], (
            f'{name} is not used, because the cut changes no layer of {handler.handles}'
        )
        assert id(handler) in changed, f'{name} changes nothing in {used[id(handler)]}'


def _check_layer(handler: LayerHandler, layer: nn.Module, pruned: nn.Module, path: str) -> None:
    actual, expected = _numbers(layer), _numbers(pruned)
    for name, number in expected.items():
        assert actual.get(name) == number, (
            f'{type(handler).__name__} leaves {name}={actual.get(name)} in {path!r}, a '
            f'{type(layer).__name__}; expected {number} after the cut'
        )


def _numbers(layer: nn.Module) -> dict[str, Any]:
    """Return the attributes of a layer that are whole numbers, or lists or tuples of them."""
    return {
        name: value if isinstance(value, int) else list(value)
        for name, value in vars(layer).items()
        if numbers_of(value) is not None
    }


def _state_of(layer: nn.Module) -> dict[str, object]:
    """Return the attributes of a layer and its submodules as comparable values."""
    return {
        f'{path}.{name}': _comparable(value)
        for path, module in layer.named_modules()
        for name, value in vars(module).items()
        if name not in _OWN
    }


def _comparable(value: object) -> object:
    if isinstance(value, list | tuple):
        return [_comparable(item) for item in value]
    if isinstance(value, Mapping):
        return [(key, _comparable(item)) for key, item in value.items()]
    return value if isinstance(value, int | float | str) else id(value)
