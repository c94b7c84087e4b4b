"""Layers as they are in a network: each with its extents, at any widths, to be timed alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from easypruner.base.modules import copy_of, evaluating
from easypruner.base.nested import map_tensors, tensors_in
from easypruner.graph import ChannelGraph
from easypruner.graph.recording.tape import call_arguments

_CONVOLUTIONS = {
    'Conv1d': nn.Conv1d,
    'Conv2d': nn.Conv2d,
    'Conv3d': nn.Conv3d,
    'ConvTranspose1d': nn.ConvTranspose1d,
    'ConvTranspose2d': nn.ConvTranspose2d,
    'ConvTranspose3d': nn.ConvTranspose3d,
}


@dataclass(frozen=True)
class LayerForm:
    """A convolution or linear layer without its widths.

    Two layers of any networks that have the same form and the same widths take the same time.

    Attributes:
        kind: the name of the class in ``torch.nn``.
        extents: the shape of its input without the channels: the batch and the positions.
        arguments: (name, value) of what the class takes besides the widths, such as the stride.
        dtype: the type of its numbers, such as ``'float32'``.
        device: the type of the device, such as ``'cpu'``.
    """

    kind: str
    extents: tuple[int, ...]
    arguments: tuple[tuple[str, Any], ...] = ()
    dtype: str = 'float32'
    device: str = 'cpu'

    @classmethod
    def of(cls, layer: nn.Module, inputs: Tensor) -> LayerForm | None:
        """Return the form of a layer with an input; None if it is another kind of layer."""
        dtype, device = str(inputs.dtype).partition('.')[2], inputs.device.type
        if isinstance(layer, nn.Linear):
            return cls('Linear', tuple(inputs.shape[:-1]), (), dtype, device)
        if not isinstance(layer, _ConvNd) or layer.padding_mode != 'zeros':
            return None
        positions = len(layer.kernel_size)
        if inputs.dim() != positions + 2:
            return None
        transposed = isinstance(layer, _ConvTransposeNd)
        names = ['kernel_size', 'stride', 'padding', 'dilation']
        names += ['output_padding'] if transposed else []
        kind = f'Conv{"Transpose" if transposed else ""}{positions}d'
        arguments = tuple((name, getattr(layer, name)) for name in names)
        extents = (inputs.shape[0], *inputs.shape[2:])
        return cls(kind, extents, arguments, dtype, device)

    def key(self, widths: Widths) -> str:
        """Return a name of the layer at some widths, the same on each machine."""
        arguments = ' '.join(f'{name}={_short(value)}' for name, value in self.arguments)
        parts = (
            f'{self.kind} {widths.inputs}->{widths.outputs}',
            f'groups={widths.groups}' if widths.groups > 1 else '',
            f'on {_short(self.extents)}',
            arguments,
            self.dtype if self.dtype != 'float32' else '',
            self.device if self.device != 'cpu' else '',
        )
        return ' '.join(filter(None, parts))

    def build(self, widths: Widths) -> tuple[nn.Module, Tensor]:
        """Return the layer at some widths, with random weights and an input."""
        where: Any = {'dtype': getattr(torch, self.dtype), 'device': self.device}
        if self.kind == 'Linear':
            shape = (*self.extents, widths.inputs)
            layer: nn.Module = nn.Linear(widths.inputs, widths.outputs, **where)
        else:
            shape = (self.extents[0], widths.inputs, *self.extents[1:])
            convolution = _CONVOLUTIONS[self.kind]
            layer = convolution(
                widths.inputs, widths.outputs, groups=widths.groups, **dict(self.arguments), **where
            )
        return layer.eval().requires_grad_(False), torch.rand(shape, **where)


@dataclass(frozen=True)
class Widths:
    """The numbers of channels of a layer.

    Attributes:
        inputs: the channels that it reads.
        outputs: the channels that it makes.
        groups: the number of groups of a convolution.
    """

    inputs: int
    outputs: int
    groups: int = 1


@dataclass(frozen=True)
class LayerUse:
    """A call of a layer in the forward pass of a network.

    Attributes:
        path: the dotted path of the layer.
        form: the layer without its widths.
        weight: the shape of its weight: two widths and the kernel.
        groups: the number of its groups.
        transposed: whether the first width of the weight is that of the inputs.
    """

    path: str
    form: LayerForm
    weight: tuple[int, ...]
    groups: int = 1
    transposed: bool = False

    def widths(self, first: int, second: int, scaled: bool) -> Widths:
        """Return the widths of the layer when its weight has other widths.

        Args:
            first: the first width of the weight.
            second: the second width of the weight.
            scaled: whether the number of groups goes with the first width.
        """
        groups = max(self.groups * first // self.weight[0], 1) if scaled else self.groups
        ends = (first, second * groups) if self.transposed else (second * groups, first)
        return Widths(*ends, groups)


def layer_uses(graph: ChannelGraph) -> tuple[LayerUse, ...]:
    """Return each call of a convolution or linear layer, in the order of the forward pass.

    A copy of the network runs once on the example inputs.
    """
    model = copy_of(graph.model)
    found: list[LayerUse] = []

    def note(path: str) -> Any:
        def hook(layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            inputs = next((tensor for _, tensor in tensors_in([*args, kwargs])), None)
            form = None if inputs is None else LayerForm.of(layer, inputs)
            if form is not None:
                weight, groups = tuple(layer.weight.shape), getattr(layer, 'groups', 1)
                transposed = isinstance(layer, _ConvTransposeNd)
                found.append(LayerUse(path, form, weight, groups, transposed))

        return hook

    for path, module in _layers(model):
        module.register_forward_pre_hook(note(path), with_kwargs=True)
    positional, named = call_arguments(inputs_on_device(graph))
    with evaluating(model), torch.no_grad():
        model(*positional, **named)
    return tuple(found)


def _layers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for path, module in model.named_modules():
        if isinstance(module, nn.Linear | _ConvNd):
            yield path, module


def device_of(graph: ChannelGraph) -> torch.device:
    """Return the device of a graph's model."""
    return next(iter(graph.model.parameters()), torch.empty(0)).device


def inputs_on_device(graph: ChannelGraph) -> Any:
    """Return the example inputs of a graph, on the device of its model."""
    device = device_of(graph)
    return map_tensors(graph.example_inputs, lambda tensor: tensor.to(device))


def _short(value: Any) -> str:
    """Return numbers as in ``3x3``, and anything else as text.

    >>> _short((3, 3)), _short('same'), _short(())
    ('3x3', 'same', '1')
    """
    if isinstance(value, tuple):
        return 'x'.join(map(str, value)) or '1'
    return str(value)
