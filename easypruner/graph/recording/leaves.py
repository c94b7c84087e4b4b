"""Leaves: frequent layers of torch, whose operations are handed straight to the watcher of a pass.

Torch takes several times as long to call a layer and to dispatch its operation as the watcher takes
to handle it. A leaf hands over the operation, with the arguments, that torch would come to. Where
that is not certain it does nothing, and the layer is called in the usual way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as of_modules

from easypruner.graph.recording.values import Watcher, active_watcher

aten = torch.ops.aten

Leaf = Callable[[Watcher, Any, Tensor], Any]
"""Hands over what a layer does to a tensor; returns its output, or NotImplemented."""

_LEAVES: dict[type[nn.Module], Leaf] = {}


def make_call(
    layer: nn.Module, leaf: Leaf | None, path: str, running: list[str]
) -> Callable[..., Any]:
    """Return a function that calls a layer, as a leaf if it is one and nothing is in the way.

    Args:
        layer: the layer.
        leaf: the leaf of its type; None if it has none.
        path: the path of the layer, which is the last of the running ones during the call.
        running: the paths of the modules whose forward is running.
    """
    call = layer._call_impl
    own = layer.__dict__

    def call_usually(*args: Any, **kwargs: Any) -> Any:
        running.append(path)
        try:
            return call(*args, **kwargs)  # type: ignore[no-untyped-call]
        finally:
            running.pop()

    if leaf is None or 'forward' in own:
        return call_usually
    run: Leaf = leaf

    def call_leaf(*args: Any, **kwargs: Any) -> Any:
        if len(args) == 1 and not kwargs and type(args[0]) is Tensor and args[0].is_meta:
            watcher = active_watcher()
            if watcher is not None and not (has_hooks(own) or has_global_hooks()):
                running.append(path)
                try:
                    result = run(watcher, layer, args[0])
                finally:
                    running.pop()
                if result is not NotImplemented:
                    return result
        return call_usually(*args, **kwargs)

    return call_leaf


def leaf_of(kind: type[nn.Module]) -> Leaf | None:
    """Return the leaf of a type of layers; None if it has none."""
    return _LEAVES.get(kind) or _NAMED_LEAVES.get(f'{kind.__module__}.{kind.__qualname__}')


def has_hooks(own: dict[str, Any]) -> bool:
    """Return whether hooks of its own run when a module with these attributes is called."""
    return bool(
        own['_forward_hooks']
        or own['_forward_pre_hooks']
        or own['_backward_hooks']
        or own['_backward_pre_hooks']
    )


def has_global_hooks() -> bool:
    """Return whether hooks run when any module is called."""
    return bool(
        of_modules._global_forward_hooks
        or of_modules._global_forward_pre_hooks
        or of_modules._global_backward_hooks
        or of_modules._global_backward_pre_hooks
    )


def _leaf(kind: type[nn.Module]) -> Callable[[Leaf], Leaf]:
    def register(leaf: Leaf) -> Leaf:
        _LEAVES[kind] = leaf
        return leaf

    return register


@_leaf(nn.Conv2d)
def _convolve(watcher: Watcher, layer: nn.Conv2d, x: Tensor) -> Any:
    if layer.padding_mode != 'zeros' or isinstance(layer.padding, str):
        return NotImplemented
    weight, bias = layer._parameters.get('weight'), layer._parameters.get('bias')
    if (
        weight is None
        or x.dim() != 4
        or weight.dim() != 4
        or not (weight.is_meta and weight.is_floating_point())
    ):
        return NotImplemented
    return watcher.hand_over(
        aten.convolution.default,
        x, weight, bias, list(layer.stride), list(layer.padding), list(layer.dilation),
        False, [0, 0], layer.groups,
    )  # fmt: skip


@_leaf(nn.BatchNorm2d)
def _normalize(watcher: Watcher, layer: nn.BatchNorm2d, x: Tensor) -> Any:
    if layer.training or x.dim() != 4 or not x.numel():
        return NotImplemented
    parameters, buffers, channels = layer._parameters, layer._buffers, x.shape[1]
    weight, bias = parameters.get('weight'), parameters.get('bias')
    tensors = weight, bias, buffers.get('running_mean'), buffers.get('running_var')
    for tensor in tensors:
        if tensor is None or tensor.shape[0] != channels:
            return NotImplemented
    momentum = 0.0 if layer.momentum is None else layer.momentum
    outputs = watcher.hand_over(
        aten.native_batch_norm.default, x, *tensors, False, momentum, layer.eps
    )
    return outputs[0]


def _pointwise_leaf(kind: type[nn.Module], func: Any, in_place: Any = None, *options: Any) -> None:
    def apply(watcher: Watcher, layer: Any, x: Tensor) -> Any:
        inside = in_place is not None and layer.inplace
        return watcher.hand_over(in_place if inside else func, x, *options)

    _LEAVES[kind] = apply


_pointwise_leaf(nn.ReLU, aten.relu.default, aten.relu_.default)
_pointwise_leaf(nn.ReLU6, aten.hardtanh.default, aten.hardtanh_.default, 0.0, 6.0)
_pointwise_leaf(nn.SiLU, aten.silu.default, aten.silu_.default)
_pointwise_leaf(nn.Hardswish, aten.hardswish.default, aten.hardswish_.default)
_pointwise_leaf(nn.Hardsigmoid, aten.hardsigmoid.default, aten.hardsigmoid_.default)
_pointwise_leaf(nn.Sigmoid, aten.sigmoid.default)


@_leaf(nn.AdaptiveAvgPool2d)
def _pool(watcher: Watcher, layer: nn.AdaptiveAvgPool2d, x: Tensor) -> Any:
    if layer.output_size not in (1, (1, 1)) or x.dim() != 4:
        return NotImplemented
    if not x.is_contiguous() or x.stride(1) == 1:  # torch may take it for channels last
        return NotImplemented
    return watcher.hand_over(aten.mean.dim, x, [-1, -2], True)


@_leaf(nn.Dropout)
def _drop(watcher: Watcher, layer: nn.Module, x: Tensor) -> Any:
    return NotImplemented if layer.training else x


_NAMED_LEAVES: dict[str, Leaf] = {}
"""Leaves of other packages, which are not imported for them, by the full names of their types."""


def note_drops(*names: str) -> None:
    """Note that layers return their only argument as it is in evaluation mode, as a dropout does.

    A plugin calls this, so that such layers need not be called in a trace.

    Args:
        names: the full names of their types, such as ``'my_package.layers.DropPath'``.
    """
    _NAMED_LEAVES.update(dict.fromkeys(names, _drop))


@_leaf(nn.Identity)
def _hand_on(watcher: Watcher, layer: nn.Identity, x: Tensor) -> Any:
    return x
