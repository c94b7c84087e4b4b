"""Output shapes of the most frequent operations, computed without their meta kernels.

On the meta device a convolution, a batch norm and some activations cost many times what any other
operation does, and together they are most of a network. Everything else runs torch's own kernel.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten


def run(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run ``func`` on its arguments; on the meta device, shortcuts give the same shapes."""
    if kwargs or not isinstance(args[0] if args else None, Tensor) or args[0].device.type != 'meta':
        return _run(func, args, kwargs)
    if func is aten.convolution.default:
        return _convolution(*args)
    if func is aten.native_batch_norm.default and not args[5]:
        return _batch_norm(args[0], args[1:5])
    if _changes_one_tensor(func):
        return args[0]
    return _run(func, args, kwargs)


def _run(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run torch's own kernel; what a module keeps in plain attributes joins the meta device."""
    try:
        return func(*args, **kwargs)
    except RuntimeError:
        tensors = [*tensors_in_arguments(args), *tensors_in_arguments(tuple(kwargs.values()))]
        if len({tensor.device.type == 'meta' for tensor in tensors}) < 2:
            raise
    return func(*_on_meta(args), **{name: _on_meta(value) for name, value in kwargs.items()})


def tensors_in_arguments(values: Sequence[Any]) -> Iterator[Tensor]:
    """Yield the tensors among arguments, lists of tensors included."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from (item for item in value if isinstance(item, Tensor))


def _on_meta(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.to('meta')
    if isinstance(value, list | tuple):
        return type(value)(_on_meta(item) for item in value)
    return value


def tensors_of(result: Any) -> tuple[Tensor, ...]:
    """Return the tensors among what an operation returned."""
    if isinstance(result, Tensor):
        return (result,)
    if isinstance(result, list | tuple):
        return tuple(item for item in result if isinstance(item, Tensor))
    return ()


@cache
def _changes_one_tensor(func: Any) -> bool:
    """Tell whether ``func`` works in place on its first argument and takes no other tensor."""
    first, *others = func._schema.arguments
    return (
        func._schema.name.endswith('_')
        and torch.Tag.inplace_view not in func.tags
        and first.alias_info is not None
        and first.alias_info.is_write
        and not any('Tensor' in str(argument.type) for argument in others)
    )


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
    """Return an empty tensor of the convolution's output shape.

    Raises:
        RuntimeError: the input's channels do not fit the weight's, as the kernel itself would.
    """
    expected = weight.shape[0] if transposed else weight.shape[1] * groups
    if x.shape[1] != expected or (
        bias is not None and bias.shape[0] != _out(weight, transposed, groups)
    ):
        raise RuntimeError(
            f'a convolution with weight {tuple(weight.shape)} and groups={groups} expects '
            f'{expected} input channels, got an input of shape {tuple(x.shape)}'
        )
    if not transposed and weight.shape[0] % groups:
        raise RuntimeError(f'{weight.shape[0]} output channels do not divide into {groups} groups')
    count = x.dim() - 2
    stride, padding, dilation = (_each(v, count) for v in (stride, padding, dilation))
    extents = []
    for i, (size, kernel) in enumerate(zip(x.shape[2:], weight.shape[2:], strict=True)):
        reach = dilation[i] * (kernel - 1)
        if transposed:
            extra = _each(output_padding, count)[i]
            extents.append((size - 1) * stride[i] - 2 * padding[i] + reach + extra + 1)
        else:
            extents.append((size + 2 * padding[i] - reach - 1) // stride[i] + 1)
    if any(extent <= 0 for extent in extents):
        raise RuntimeError(
            f'a convolution with kernel {tuple(weight.shape[2:])} is larger than its '
            f'input of shape {tuple(x.shape)}'
        )
    return x.new_empty((x.shape[0], _out(weight, transposed, groups), *extents))


def _out(weight: Tensor, transposed: bool, groups: int) -> int:
    return weight.shape[1] * groups if transposed else weight.shape[0]


def _each(value: list[int], count: int) -> list[int]:
    return list(value) * count if len(value) == 1 else list(value)


def _batch_norm(x: Tensor, per_channel: tuple[Tensor | None, ...]) -> tuple[Tensor, Tensor, Tensor]:
    for tensor in per_channel:
        if tensor is not None and tensor.shape[0] != x.shape[1]:
            raise RuntimeError(
                f'a batch norm of {tensor.shape[0]} channels got an input of shape {tuple(x.shape)}'
            )
    return torch.empty_like(x), x.new_empty(0), x.new_empty(0)
