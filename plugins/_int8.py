"""Layers with int8 weights, and their kernels."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

_LEVELS = 254
"""The steps of 8-bit activations: one less than possible, so that rounding cannot overflow."""
_SIGN = 128
_LARGEST = 127
_TINY = 1e-12


class Int8Layer(nn.Module):
    """A layer with int8 weights, which quantizes its activations at each call.

    ``y = s_x s_w W_q (x_q - z) + bias``. The weights W_q are symmetric, with a scale s_w for each
    output channel. The activations x_q have 8 bits, with a scale s_x and a zero point z for each
    sample (of a convolution) or row (of a linear layer), so that a result does not depend on the
    rest of its batch (affine quantization; Jacob et al., 2018, arXiv 1712.05877, equation 1). On a
    machine without exact int8 kernels, the same numbers are computed in float. There are no
    gradients.

    The state dict has ``weight`` (int8), ``weight_scale`` and ``bias``.
    """

    weight_scale: Tensor

    def __init__(self, layer: Any) -> None:
        super().__init__()
        empty = torch.empty(layer.weight.shape, dtype=torch.int8, device=layer.weight.device)
        self.weight = nn.Parameter(empty, requires_grad=False)
        self.register_buffer('weight_scale', layer.weight.new_empty(len(empty)).float().detach())
        bias = layer.bias
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone(), False)
        self._derived: dict[str, tuple[Tensor, Any, Tensor]] = {}
        self.training = layer.training

    @torch.no_grad()
    def quantize(self, layer: Any) -> None:
        """Quantize the weights of the layer that this one replaces."""
        weight = layer.weight.float()
        self.weight_scale.copy_(weight.flatten(1).abs().amax(1).clamp_min(_TINY) / _LARGEST)
        self.weight.copy_((weight / _along_outputs(self.weight_scale, weight.dim())).round_())
        self._derived.clear()

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Return the result of the float layer, up to the rounding of 8 bits."""
        x, dtype = x.float(), x.dtype
        dims = tuple(range(1, x.dim()))
        low = x.amin(dims, keepdim=True).clamp_max(0)
        high = x.amax(dims, keepdim=True).clamp_min(0)
        scale = ((high - low) / _LEVELS).clamp_min(_TINY)
        zero = torch.round(-low / scale) - _SIGN
        quantized = (x / scale).add_(zero).round_().to(torch.int8)
        y, offset = self.multiply(quantized)
        shift = -scale * (zero + offset) * _along_channels(self._sums(), x.dim())
        if self.bias is not None:
            shift = shift + _along_channels(self.bias.float(), x.dim())
        return torch.addcmul(shift, y, scale).to(dtype)

    def multiply(self, quantized: Tensor) -> tuple[Tensor, int]:
        """Return ``s_w W_q (x_q + offset)``, and the offset.

        Args:
            quantized: the int8 activations.
        """
        raise NotImplementedError

    def _sums(self) -> Tensor:
        """Return the sum of each output channel's weights, for subtracting the zero point."""

        def sums() -> Tensor:
            return self.weight.flatten(1).sum(1, dtype=torch.int32) * self.weight_scale

        return self.derived('sums', None, sums)

    def derived(self, name: str, key: Any, make: Callable[[], Tensor]) -> Tensor:
        """Return a tensor made from the weights. It is cached for these weights and one key.

        Args:
            name: the name of the tensor.
            key: what else the tensor depends on, such as a shape.
            make: makes the tensor.
        """
        known = self._derived.get(name)
        if known is None or known[0] is not self.weight or known[1] != key:
            known = self._derived[name] = (self.weight, key, make())
        return known[2]

    def _load_from_state_dict(self, state: Any, prefix: str, *args: Any) -> None:
        errors: list[str] = args[-1]
        weight = state.get(f'{prefix}weight')
        # Float weights that are copied into int8 would silently become zeros.
        if isinstance(weight, Tensor) and weight.dtype != torch.int8:
            errors.append(f'{prefix}weight is {weight.dtype}; the quantized network expects int8')
            return
        self._derived.clear()
        super()._load_from_state_dict(state, prefix, *args)

    def _apply(self, *args: Any, **kwargs: Any) -> Any:
        self._derived.clear()
        return super()._apply(*args, **kwargs)  # type: ignore[no-untyped-call]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, '_derived': {}}


class Int8Linear(Int8Layer):
    """A linear layer with int8 weights, and a scale of activations for each row."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__(layer)
        self.in_features, self.out_features = layer.in_features, layer.out_features

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, self.in_features)
        return super().forward(rows).reshape(*x.shape[:-1], self.out_features)

    def multiply(self, quantized: Tensor) -> tuple[Tensor, int]:
        if quantized.is_cpu and len(quantized) and has_int8_kernels():
            product = torch._int_mm(quantized, self.weight.t()).float()
        else:
            product = functional.linear(quantized.float(), self.weight.float())
        return product * self.weight_scale, 0

    def extra_repr(self) -> str:
        return f'in_features={self.in_features}, out_features={self.out_features}'


class Int8Conv2d(Int8Layer):
    """A convolution with int8 weights, and a scale of activations for each sample."""

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__(layer)
        self.in_channels, self.out_channels = layer.in_channels, layer.out_channels
        self.kernel_size, self.groups = layer.kernel_size, layer.groups
        self.stride, self.dilation = layer.stride, layer.dilation
        self.padding: Any = layer.padding

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() < self.weight.dim():
            return self.forward(x[None])[0]
        height, width = self.padding
        # Padding before the quantization gives its zeros the zero point of each sample.
        y = super().forward(functional.pad(x, (width, width, height, height)))
        # The kernels return the channels-last format, but the next layer may take views.
        return y.contiguous() if x.is_contiguous() else y

    def multiply(self, quantized: Tensor) -> tuple[Tensor, int]:
        scale = self.weight_scale
        settings = (list(self.stride), list(self.dilation), self.groups)
        if quantized.is_cpu and len(quantized) and has_int8_kernels():
            # The kernel takes uint8. Flipping the sign bit adds 128.
            unsigned = quantized.view(torch.uint8).bitwise_xor(_SIGN)
            unsigned = unsigned.contiguous(memory_format=torch.channels_last)
            packed = self.derived(
                'packed', x := unsigned.shape, lambda: _packed(self.weight, scale, *settings, x)
            )
            return _convolved(unsigned, packed, scale, *settings), _SIGN
        stride, dilation, groups = settings
        weight = self.weight.float()
        y = functional.conv2d(quantized.float(), weight, None, stride, 0, dilation, groups)
        return y * _along_channels(scale, y.dim()), 0

    def extra_repr(self) -> str:
        return (
            f'{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, '
            f'stride={self.stride}, padding={self.padding}, groups={self.groups}'
        )


def int8_type_for(layer: nn.Module) -> type[Int8Layer] | None:
    """Return the int8 type for a layer; None if there is none."""
    if isinstance(layer, nn.Linear):
        return Int8Linear
    return Int8Conv2d if isinstance(layer, nn.Conv2d) else None


@cache
def has_int8_kernels() -> bool:
    """Tell whether this machine and this torch have int8 kernels that compute exactly.

    On processors without VNNI, intermediate results saturate. The largest numbers show this.
    """
    weight = torch.full((8, 64, 1, 1), _LARGEST, dtype=torch.int8)
    settings: tuple[list[int], list[int], int] = ([1, 1], [1, 1], 1)
    ones, images = torch.ones(8), torch.full((2, 64, 1, 1), 255, dtype=torch.uint8)
    try:
        packed = _packed(weight, ones, *settings, images.shape)
        convolved = _convolved(images, packed, ones, *settings)
        product = torch._int_mm(
            torch.full((2, 64), _LARGEST, dtype=torch.int8), weight.flatten(1).t()
        )
    except (AttributeError, RuntimeError):
        return False
    exact = bool((convolved == 64 * _LARGEST * 255).all())
    return exact and bool((product == 64 * _LARGEST * _LARGEST).all())


def _packed(
    weight: Tensor, scale: Tensor, stride: Any, dilation: Any, groups: int, shape: Any
) -> Tensor:
    """Return a weight in the format of the kernel, for inputs of a shape."""
    return torch.ops.onednn.qconv_prepack(
        weight, scale, 1.0, 0, stride, [0, 0], dilation, groups, list(shape)
    )


def _convolved(
    images: Tensor, packed: Tensor, scale: Tensor, stride: Any, dilation: Any, groups: int
) -> Tensor:
    zeros = torch.zeros(len(scale), dtype=torch.int32)
    return torch.ops.onednn.qconv2d_pointwise(
        images, 1.0, 0, packed, scale, zeros, None, stride, [0, 0], dilation, groups,
        1.0, 0, torch.float32, 'none', [], '',
    )  # fmt: skip


def _along_channels(values: Tensor, dims: int) -> Tensor:
    """Return the values of channels in a shape that broadcasts to activations."""
    return values.view(1, -1, *[1] * (dims - 2))


def _along_outputs(values: Tensor, dims: int) -> Tensor:
    """Return the values of output channels in a shape that broadcasts to weights."""
    return values.view(-1, *[1] * (dims - 1))
