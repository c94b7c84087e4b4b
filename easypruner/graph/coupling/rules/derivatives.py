"""Rules for operations of derivatives, which a forward pass may compute as a part of its output."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from easypruner.graph.coupling.axes import Axis
from easypruner.graph.coupling.rules.fills import fill
from easypruner.graph.coupling.rules.pointwise import pointwise
from easypruner.graph.coupling.rules.registration import Coupling, Operation, rule

_GROUPED = 'the derivative of a grouped convolution'

rule('_efficientzerotensor')(fill)

# Torch does not tag them. Those of ``prims`` are what derivatives in forward mode consist of.
rule(
    'elu_backward', 'hardsigmoid_backward', 'hardswish_backward', 'hardtanh_backward',
    'leaky_relu_backward', 'mish_backward', 'softplus_backward', 'log_sigmoid_backward',
    '_prelu_kernel_backward', 'rrelu_with_noise_backward',
    *(f'prims::{name}' for name in (
        'acos', 'acosh', 'asin', 'asinh', 'atan', 'atanh', 'cos', 'cosh', 'ceil', 'erf', 'erf_inv',
        'erfc', 'exp', 'expm1', 'floor', 'lgamma', 'log', 'log1p', 'log10', 'neg', 'round', 'sin',
        'sinh', 'sqrt', 'tan', 'tanh', 'add', 'atan2', 'div', 'eq', 'fmod', 'ge', 'gt', 'le', 'lt',
        'mul', 'ne', 'pow', 'remainder', 'sub', 'where', 'clone',
    )),
)(pointwise)  # fmt: skip


@rule('convolution_backward')
def convolve_back(coupling: Coupling, operation: Operation) -> None:
    """Couple the gradient of the output with the weight's outputs, the input with its inputs."""
    gradient, x, weight = operation.args[:3]
    groups, transposed = operation.argument('groups'), bool(operation.argument('transposed'))
    coupling.note_use(weight, 'convolution.weight')
    of_gradient, of_x, kernel = (list(coupling.axes_of(each)) for each in (gradient, x, weight))
    reader, producer = (0, 1) if transposed else (1, 0)
    if groups == 1:
        of_x[1] = coupling.couple(of_x[1], kernel[reader])
        of_gradient[1] = coupling.couple(of_gradient[1], kernel[producer])
    elif groups == weight.shape[0] and weight.shape[1] == 1:
        of_x[1] = of_gradient[1] = coupling.couple_all([of_x[1], of_gradient[1], kernel[0]])
    else:
        for axis in (of_x[1], of_gradient[1], *kernel[:2]):
            coupling.freeze(axis, coupling.explain(_GROUPED))
    made = _assign_gradients(coupling, operation, of_x, kernel, of_gradient[1:2])
    positions = (of_x if transposed else of_gradient)[2:]
    for _ in range(made - bool(operation.argument('output_mask')[2])):
        size = math.prod(weight.shape[2:])
        coupling.add_macs(size, of_gradient[0], *positions, kernel[0], kernel[1])


@rule('native_batch_norm_backward', 'native_layer_norm_backward', 'native_group_norm_backward')
def normalize_back(coupling: Coupling, operation: Operation) -> None:
    """Couple the gradient with the input, and the weight with the channels as the norm does."""
    gradient, x = operation.args[:2]
    pairs = zip(coupling.axes_of(gradient), coupling.axes_of(x), strict=True)
    axes = [coupling.couple(a, b) for a, b in pairs]
    is_layer = operation.name == 'native_layer_norm_backward'
    start = len(axes) - len(operation.args[2]) if is_layer else 1
    weight: Tensor | None = operation.argument('weight')
    of_weight: Sequence[Axis] = axes[start:] if is_layer else axes[1:2]
    if weight is not None:
        pairs = zip(of_weight, coupling.axes_of(weight), strict=True)
        of_weight = [coupling.couple(a, b) for a, b in pairs]
    if operation.name == 'native_group_norm_backward':
        coupling.couple_runs(axes[1], operation.argument('group'))
    if operation.name != 'native_batch_norm_backward':
        for axis in of_weight:
            coupling.note_mixing(axis)
    _assign_gradients(coupling, operation, axes, of_weight, of_weight)


def _assign_gradients(coupling: Coupling, operation: Operation, *every: Sequence[Axis]) -> int:
    """Give each gradient the axes of its tensor. An operation makes those that its mask asks for.

    Args:
        coupling: knows the axes.
        operation: the operation.
        every: the axes of the input, the weight and the bias.

    Returns:
        how many gradients the operation makes.
    """
    wanted = [
        axes
        for axes, is_made in zip(every, operation.argument('output_mask'), strict=True)
        if is_made
    ]
    for output, axes in zip(operation.outputs, wanted, strict=True):
        coupling.assign(output, axes)
    return len(wanted)
