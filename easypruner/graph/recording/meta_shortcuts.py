"""Shortcuts: output shapes of frequent operations on the meta device, without their kernels.

A shortcut returns an output of the same shape, dtype and strides as torch's kernel, or
NotImplemented.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from easypruner.graph.recording.grouped_products import is_grouped_product, multiply_groups
from easypruner.graph.recording.kinds import once_each

aten = torch.ops.aten

META = torch.device('meta')

Shortcut = Callable[..., Any]
_SHORTCUTS: dict[Any, Shortcut] = {}

_SAME_KIND = (
    'abs', 'add', 'celu', 'clamp', 'clamp_max', 'clamp_min', 'cos', 'div', 'elu', 'erf', 'exp',
    'gelu', 'hardshrink', 'hardsigmoid', 'hardswish', 'hardtanh', 'leaky_relu', 'log',
    'log_sigmoid', 'maximum', 'minimum', 'mish', 'mul', 'neg', 'pow', 'relu', 'relu6', 'rsqrt',
    'selu', 'sigmoid', 'silu', 'sin', 'softplus', 'sqrt', 'square', 'sub', 'tanh',
)  # fmt: skip
"""Pointwise operations whose result has the dtype of their floating-point arguments."""


@once_each
def find_shortcut(func: Any) -> Shortcut | None:
    """Return the shortcut of an operation; None if it has none."""
    if is_grouped_product(func):
        return multiply_groups
    known = _SHORTCUTS.get(func)
    if func.namespace != 'aten':
        return known
    if known is None and _changes_one_tensor(func):
        return _return_first
    if known is None and torch.Tag.pointwise in func.tags:
        name = func.overloadpacket.__name__
        if name.endswith('_') and name[:-1] in _SAME_KIND:
            return _in_place
        return _pointwise if name in _SAME_KIND and 'out' not in func._overloadname else None
    return known


def _changes_one_tensor(func: Any) -> bool:
    """Return whether an operation changes its first argument and takes no other tensor."""
    if not func._schema.arguments:
        return False
    first, *others = func._schema.arguments
    return (
        func._schema.name.endswith('_')
        and torch.Tag.inplace_view not in func.tags
        and first.alias_info is not None
        and first.alias_info.is_write
        and not any('Tensor' in str(argument.type) for argument in others)
    )


def _return_first(x: Tensor, *others: Any, **options: Any) -> Tensor:
    return x


def _shortcut(*overloads: Any) -> Callable[[Shortcut], Shortcut]:
    def register(function: Shortcut) -> Shortcut:
        _SHORTCUTS.update(dict.fromkeys(overloads, function))
        return function

    return register


def _empty(shape: Sequence[int], like: Tensor) -> Tensor:
    return torch.empty(shape, dtype=like.dtype, device=META)


def _alike(x: Tensor) -> Tensor:
    """Return a new tensor of the same shape, dtype and strides. There is no memory to share."""
    return x.detach()


@lru_cache(64)
def _nothing(dtype: torch.dtype) -> Tensor:
    """Return the empty tensor that stands for statistics which nobody reads."""
    return torch.empty((0,), dtype=dtype, device=META)


def _pointwise(*args: Any, **options: Any) -> Any:
    """Return an empty tensor of the shape that broadcasting gives.

    Its layout is that of the arguments of this shape. If their layouts differ, the kernel decides.
    """
    tensors = [value for value in args if isinstance(value, Tensor)]
    first = tensors[0]
    shape = list(first.shape)
    for tensor in tensors:
        if tensor.dtype != first.dtype or not tensor.is_floating_point():
            return NotImplemented
        together = _broadcast(shape, list(tensor.shape))
        if together is None:
            return NotImplemented
        shape = together
    whole = [tensor for tensor in tensors if list(tensor.shape) == shape]
    if not whole:
        plain = all(tensor.is_contiguous() for tensor in tensors)
        return _empty(shape, first) if plain else NotImplemented
    strides = whole[0].stride()
    if any(tensor.stride() != strides for tensor in whole[1:]):
        return NotImplemented
    is_dense = whole[0].is_contiguous() or _is_dense(shape, strides)
    return _alike(whole[0]) if is_dense else NotImplemented


# torch does not tag it as pointwise.
_SHORTCUTS[torch.ops.aten.hardswish.default] = _pointwise


def _in_place(x: Tensor, *others: Any, **options: Any) -> Any:
    shape = list(x.shape)
    for other in others:
        if isinstance(other, Tensor) and _broadcast(shape, list(other.shape)) != shape:
            return NotImplemented
    return x


def _is_dense(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Return whether the entries lie in memory without gaps or overlaps, in any order."""
    expected = 1
    for stride, size in sorted(zip(strides, shape, strict=True)):
        if size != 1 and stride != expected:
            return False
        expected *= size
    return True


def _broadcast(a: list[int], b: list[int]) -> list[int] | None:
    """Return the shape to which two shapes are broadcast; None if they do not fit."""
    if a == b:
        return a
    if len(a) < len(b):
        a, b = b, a
    shape = list(a)
    for position, size in enumerate(b, start=len(a) - len(b)):
        if shape[position] == 1:
            shape[position] = size
        elif size not in (1, shape[position]):
            return None
    return shape


@_shortcut(aten.convolution.default)
def _convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    transposed: bool,
    output_padding: list[int],
    groups: int,
) -> Tensor:
    whole, grouped = weight.shape[0], weight.shape[1] * groups
    expected, made = (whole, grouped) if transposed else (grouped, whole)
    if x.shape[1] != expected or (bias is not None and bias.shape[0] != made):
        raise RuntimeError(
            f'a convolution with weight {tuple(weight.shape)} and groups={groups} expects '
            f'{expected} input channels, got an input of shape {tuple(x.shape)}'
        )
    if not transposed and made % groups:
        raise RuntimeError(f'{made} output channels do not divide into {groups} groups')
    sizes, kernels = x.shape[2:], weight.shape[2:]
    if transposed:
        extents = _extents_transposed(sizes, kernels, stride, padding, dilation, output_padding)
    else:
        extents = _extents(sizes, kernels, stride, padding, dilation)
    if min(extents) <= 0:
        raise RuntimeError(
            f'a convolution with kernel {tuple(weight.shape[2:])} is larger than its '
            f'input of shape {tuple(x.shape)}'
        )
    return _empty((x.shape[0], made, *extents), x)


def _extents(
    sizes: Sequence[int],
    kernels: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> list[int]:
    """Return the extents of the output of a convolution."""
    windows = zip(sizes, kernels, *_each(len(sizes), stride, padding, dilation), strict=True)
    return [(size + 2 * p - d * (kernel - 1) - 1) // s + 1 for size, kernel, s, p, d in windows]


def _extents_transposed(
    sizes: Sequence[int],
    kernels: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    output_padding: Sequence[int],
) -> list[int]:
    """Return the extents of the output of a transposed convolution."""
    each = _each(len(sizes), stride, padding, dilation, output_padding)
    windows = zip(sizes, kernels, *each, strict=True)
    return [
        (size - 1) * s - 2 * p + d * (kernel - 1) + extra + 1
        for size, kernel, s, p, d, extra in windows
    ]


def _each(count: int, *numbers: Sequence[int]) -> list[Sequence[int]]:
    """Return lists of a number for each dimension. A single number counts for all."""
    return [list(own) * count if len(own) == 1 else own for own in numbers]


@_shortcut(aten.native_batch_norm.default)
def _batch_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor | None,
    variance: Tensor | None,
    training: bool,
    *others: Any,
) -> Any:
    if not x.is_contiguous():
        return NotImplemented
    for tensor in (weight, bias, mean, variance):
        if tensor is not None and tensor.shape[0] != x.shape[1]:
            raise RuntimeError(
                f'a batch norm of {tensor.shape[0]} channels got an input of shape {tuple(x.shape)}'
            )
    # In training, the operation also returns the statistics of the batch.
    if training:
        return _alike(x), _empty(x.shape[1:2], x), _empty(x.shape[1:2], x)
    nothing = _nothing(x.dtype)
    return _alike(x), nothing, nothing


@_shortcut(aten.native_layer_norm.default)
def _layer_norm(
    x: Tensor, shape: Sequence[int], weight: Tensor | None, bias: Tensor | None, epsilon: float
) -> Any:
    start = x.dim() - len(shape)
    normalized = [x.shape[start:], *(t.shape for t in (weight, bias) if t is not None)]
    if any(list(extents) != list(shape) for extents in normalized):
        return NotImplemented
    rows = (*x.shape[:start], *([1] * len(shape)))
    return _empty(x.shape, x), _empty(rows, x), _empty(rows, x)


@_shortcut(aten.addmm.default)
def _addmm(added: Tensor, a: Tensor, b: Tensor, **factors: Any) -> Any:
    if added.shape[-1] not in (1, b.shape[-1]) or added.dim() > 1:
        return NotImplemented
    return _matrix_product(a, b)


@_shortcut(aten.mm.default, aten.bmm.default)
def _matrix_product(a: Tensor, b: Tensor) -> Any:
    if a.shape[-1] != b.shape[-2] or a.shape[:-2] != b.shape[:-2]:
        return NotImplemented
    return _empty((*a.shape[:-1], b.shape[-1]), a)


@_shortcut(aten._softmax.default, aten._log_softmax.default)
def _softmax(x: Tensor, dim: int, other_dtype: Any = None) -> Any:
    return _alike(x) if x.is_contiguous() and not other_dtype else NotImplemented


if hasattr(aten, '_safe_softmax'):  # since torch 2.5
    _SHORTCUTS[aten._safe_softmax.default] = _softmax


@_shortcut(aten.cat.default)
def _cat(tensors: Sequence[Tensor], dim: int = 0) -> Any:
    first = tensors[0]
    dim = dim + first.dim() if dim < 0 else dim
    rest = [size for i, size in enumerate(first.shape) if i != dim]
    for tensor in tensors:
        others = [size for i, size in enumerate(tensor.shape) if i != dim]
        fits = tensor.dtype == first.dtype and tensor.is_contiguous() and others == rest
        if not fits or tensor.device.type != 'meta':
            return NotImplemented
    shape = list(first.shape)
    shape[dim] = sum(tensor.shape[dim] for tensor in tensors)
    return _empty(shape, first)


@_shortcut(aten.mean.dim)
def _mean(x: Tensor, dims: Sequence[int] | None, keepdim: bool = False, **options: Any) -> Any:
    if options or not dims or not x.is_contiguous():
        return NotImplemented
    reduced = {dim + x.dim() if dim < 0 else dim for dim in dims}
    sizes = [1 if i in reduced else size for i, size in enumerate(x.shape)]
    return _empty([s for i, s in enumerate(sizes) if keepdim or i not in reduced], x)


@_shortcut(aten.clone.default)
def _clone(x: Tensor, memory_format: torch.memory_format | None = None) -> Any:
    contiguous = memory_format is torch.contiguous_format or x.is_contiguous()
    usual = memory_format in (None, torch.preserve_format, torch.contiguous_format)
    return _empty(x.shape, x) if contiguous and usual else NotImplemented


@_shortcut(
    aten.upsample_bilinear2d.default, aten.upsample_bicubic2d.default,
    aten.upsample_nearest2d.default, aten.upsample_linear1d.default,
    aten.upsample_trilinear3d.default,
)  # fmt: skip
def _upsample(x: Tensor, size: Sequence[int], *options: Any) -> Any:
    if x.dim() != 2 + len(size) or not x.is_floating_point() or not all((*x.shape, *size)):
        return NotImplemented
    if x.is_contiguous():
        return _empty((*x.shape[:2], *size), x)
    # A layout of channels last stays; the kernel decides what becomes of any other.
    if x.dim() != 4 or x.shape[1] < 2 or not x.is_contiguous(memory_format=torch.channels_last):
        return NotImplemented
    shape = (*x.shape[:2], *size)
    return torch.empty(shape, dtype=x.dtype, device=META, memory_format=torch.channels_last)


@_shortcut(aten.grid_sampler_2d.default)
def _sample(x: Tensor, grid: Tensor, *options: Any) -> Any:
    """Return the output of sampling ``(N, C, h, w)`` at a grid of points, ``(N, H, W, 2)``."""
    fits = x.dim() == grid.dim() == 4 and x.shape[0] == grid.shape[0] and grid.shape[-1] == 2
    plain = x.is_contiguous() and grid.is_contiguous() and x.dtype == grid.dtype
    if not (fits and plain and grid.is_meta and all((*x.shape, *grid.shape))):
        return NotImplemented
    return _empty((*x.shape[:2], *grid.shape[1:3]), x)


@_shortcut(aten.native_group_norm.default)
def _group_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    count: int,
    channels: int,
    positions: int,
    groups: int,
    *others: Any,
) -> Any:
    scales = [t for t in (weight, bias) if t is not None]
    fits = x.shape[:2] == (count, channels) and x.numel() == count * channels * positions
    alike = all(t.shape == (channels,) and t.dtype == x.dtype and t.is_meta for t in scales)
    single = x.dtype in (torch.float32, torch.float64) and x.is_contiguous()
    if not (fits and alike and single and groups > 0) or channels % groups:
        return NotImplemented
    return _alike(x), _empty((count, groups), x), _empty((count, groups), x)


@_shortcut(aten.roll.default)
def _roll(x: Tensor, shifts: Sequence[int], dims: Sequence[int] = ()) -> Any:
    return _empty(x.shape, x)
