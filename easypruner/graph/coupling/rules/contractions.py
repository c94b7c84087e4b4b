"""Rules for operations that sum over channels: convolutions and matrix products."""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor

from easypruner.graph.coupling.coupling import INNER, Axis, Coupling
from easypruner.graph.coupling.rules import rule
from easypruner.graph.coupling.rules.arguments import argument, first_tensor
from easypruner.graph.coupling.rules.spatial import extents_after
from easypruner.graph.recording.tape import Operation

KERNEL = 'the extent of a convolution kernel'


def removes_whole_groups(in_per_group: int, out_per_group: int) -> bool:
    """Tell how a grouped convolution is cut: by whole groups, or by positions within each.

    Whole groups go where a group has one channel on either side (a depthwise convolution);
    elsewhere the number of groups stays and all groups lose the same positions.
    """
    return in_per_group == 1 or out_per_group == 1


@rule('convolution', '_convolution', 'conv1d', 'conv2d', 'conv3d', 'mkldnn_convolution')
def convolution(coupling: Coupling, operation: Operation) -> None:
    x, weight = operation.args[:2]
    bias = argument(operation, 2, 'bias')
    full = operation.name in ('convolution', '_convolution')
    transposed = bool(full and operation.args[6])
    groups = operation.args[8] if full else argument(operation, 6, 'groups', 1)
    output = operation.outputs[0]
    coupling.use(weight, 'convolution.weight', output.shape[2:])
    axes = coupling.axes(x)
    extents = {dim: coupling.constant(size, KERNEL) for dim, size in enumerate(weight.shape[2:], 2)}
    if groups == 1:
        reader, producer = (0, 1) if transposed else (1, 0)
        kernel = coupling.own(weight, {reader: axes[1], **extents}, reads=reader)
        out = kernel[producer]
    elif groups == weight.shape[0] and weight.shape[1] == 1:
        kernel = coupling.own(weight, {0: axes[1], **extents})
        out = kernel[0]
        coupling.count('groups', out)
    else:
        kernel = coupling.own(weight, extents)
        out = _grouped(coupling, axes[1], weight, groups, transposed)
    if bias is not None:
        coupling.use(bias, 'convolution.bias')
        coupling.own(bias, {0: out})
    after = extents_after(coupling, axes[2:], output)
    coupling.assign(output, (axes[0], out, *after))
    # A batch or an extent may hold channels that a reshape has put there.
    places = (axes[0], *(axes[2:] if transposed else after))
    coupling.macs(math.prod(weight.shape[2:]), *places, kernel[0], kernel[1])


def _grouped(
    coupling: Coupling, channels: Axis, weight: Tensor, groups: int, transposed: bool
) -> Axis:
    first, second = coupling.axes(weight)[:2]
    per_group = first.size // groups
    in_per_group, out_per_group = (
        (per_group, second.size) if transposed else (second.size, per_group)
    )
    if removes_whole_groups(in_per_group, out_per_group):
        return _by_groups(coupling, channels, first, second, groups, transposed)
    rows = [channels.reshape(groups, -1), first.reshape(groups, -1)]
    free = [_same_positions(coupling, grid) for grid in rows]
    if transposed:
        coupling.couple(free[0], free[1])
        coupling.read(first)
        return np.tile(second, groups)
    coupling.couple(free[0], second)
    coupling.read(second)
    return first


def _by_groups(
    coupling: Coupling, channels: Axis, first: Axis, second: Axis, groups: int, transposed: bool
) -> Axis:
    """Couple everything within each group; return the output's axis."""
    coupling.fix(second, 'the channels within one group of a grouped convolution')
    grid, rows = channels.reshape(groups, -1), first.reshape(groups, -1)
    lead = coupling.couple(rows[:, 0], grid[:, 0])
    for table in (grid, rows):
        for column in table.T[1:]:
            lead = coupling.couple(lead, column)
    coupling.count('groups', lead)
    return np.repeat(lead, second.size) if transposed else first


def _same_positions(coupling: Coupling, grid: Axis) -> Axis:
    """Couple position j of every row; return the positions."""
    lead: Axis = grid[0]
    for row in grid[1:]:
        lead = coupling.couple(lead, row)
    return lead


@rule('linear')
def linear(coupling: Coupling, operation: Operation) -> None:
    x, weight = operation.args[:2]
    bias = argument(operation, 2, 'bias')
    coupling.use(weight, 'linear.weight', x.shape[:-1])
    axes, (out, reads) = coupling.axes(x), coupling.axes(weight)
    coupling.contract(x, axes[-1], weight, reads)
    if bias is not None:
        coupling.use(bias, 'linear.bias')
        coupling.own(bias, {0: out})
    coupling.assign(operation.outputs[0], (*axes[:-1], out))
    coupling.macs(1, *axes[:-1], reads, coupling.axes(weight)[0])


@rule('mm', 'matmul', 'mv', 'dot', 'bmm', 'vdot')
def product(coupling: Coupling, operation: Operation) -> None:
    coupling.assign(operation.outputs[0], _product(coupling, *operation.args[:2]))


@rule('addmm', 'baddbmm', 'addmv', 'addbmm')
def sum_and_product(coupling: Coupling, operation: Operation) -> None:
    added, a, b = operation.args[:3]
    result = _product(coupling, a, b)
    if operation.name == 'addbmm':
        result = result[1:]
    coupling.use(added, 'linear.bias')
    axes = coupling.axes(added)
    shift = len(result) - len(axes)
    for position, axis in enumerate(axes, start=shift):
        if axis.size == result[position].size:
            result[position] = coupling.couple(result[position], axis)
    coupling.assign(operation.outputs[0], result)


def _product(coupling: Coupling, a: Tensor, b: Tensor) -> list[Axis]:
    """Couple what a (batched) matrix product sums over; return the axes of the result."""
    for tensor, other in ((a, b), (b, a)):
        if coupling.weight_of(other) is None:
            coupling.use(tensor, 'linear.weight', other.shape[:-1])
    left, right = list(coupling.axes(a)), list(coupling.axes(b))
    summed_left = left.pop()
    summed_right = right.pop(-2 if len(right) > 1 else 0)
    coupling.contract(a, summed_left, b, summed_right)
    rows = [left.pop()] if left else []
    columns = [right.pop()] if right else []
    if coupling.weight_of(a) is None and coupling.weight_of(b) is None:
        coupling.attend([*left, *right], [summed_left, summed_right, *rows, *columns])
    batch = _batch(coupling, left, right)
    summed = summed_left if coupling.is_constant(summed_left) else summed_right
    coupling.macs(1, summed, *batch, *rows, *columns)
    return [*batch, *rows, *columns]


def _batch(coupling: Coupling, left: list[Axis], right: list[Axis]) -> list[Axis]:
    if len(left) < len(right):
        left, right = right, left
    batch = list(left)
    shift = len(left) - len(right)
    for position, axis in enumerate(right, start=shift):
        if batch[position].size == 1:
            batch[position] = axis
        elif axis.size != 1:
            batch[position] = coupling.couple(batch[position], axis)
    return batch


@rule('_scaled_dot_product_flash_attention_for_cpu', '_scaled_dot_product_flash_attention',
      '_scaled_dot_product_efficient_attention', '_scaled_dot_product_attention_math',
      'scaled_dot_product_attention', '_scaled_dot_product_fused_attention_overrideable',
      '_scaled_dot_product_cudnn_attention',
      '_scaled_dot_product_attention_math_for_mps')  # fmt: skip
def attention(coupling: Coupling, operation: Operation) -> None:
    q, k, v = operation.args[:3]
    (*batch, rows, width), (*batch_k, keys, width_k), (*batch_v, values, out) = (
        coupling.axes(t) for t in (q, k, v)
    )
    coupling.attend([*batch, *batch_k, *batch_v], [width, width_k, out])
    for i in range(len(batch)):
        for other in (batch_k[i], batch_v[i]):
            if other.size == batch[i].size:
                batch[i] = coupling.couple(batch[i], other)
    coupling.contract(q, width, k, width_k)
    coupling.couple(keys, values)
    coupling.mix(keys)
    mask = argument(operation, 3, 'attn_mask')
    if isinstance(mask, Tensor):
        for axis, other in zip((*batch, rows, keys)[-mask.dim() :], coupling.axes(mask),
                               strict=True):  # fmt: skip
            if axis.size == other.size:
                coupling.couple(axis, other)
    result = operation.outputs[0]
    coupling.assign(result, (*batch, rows, out))
    for extra in operation.outputs[1:]:
        coupling.assign(extra, (coupling.constant(size, INNER) for size in extra.shape))
    coupling.macs(1, *batch, rows, keys, width)
    coupling.macs(1, *batch, rows, keys, out)


@rule('bilinear', '_trilinear')
def bilinear(coupling: Coupling, operation: Operation) -> None:
    for tensor in operation.args[:3]:
        for axis in coupling.axes(tensor):
            coupling.fix(axis, 'a bilinear form')
    output = operation.outputs[0]
    coupling.assign(output, (coupling.constant(size) for size in output.shape))


@rule('deform_conv2d')
def deformable(coupling: Coupling, operation: Operation) -> None:
    x, weight, offset, mask, bias = operation.args[:5]
    groups = operation.args[11]
    offset_groups = operation.args[12]
    axes, kernel = coupling.axes(x), coupling.axes(weight)
    coupling.use(weight, 'convolution.weight')
    for axis in (*kernel[2:], coupling.axes(offset)[1], coupling.axes(mask)[1]):
        coupling.fix(axis, KERNEL)
    if groups == 1 and offset_groups == 1:
        coupling.contract(x, axes[1], weight, kernel[1])
    else:
        for axis in (axes[1], *kernel[:2]):
            coupling.fix(axis, 'a deformable convolution in groups')
    out = coupling.couple(kernel[0], coupling.axes(bias)[0])
    coupling.use(bias, 'convolution.bias')
    output = operation.outputs[0]
    coupling.assign(output, (axes[0], out, *extents_after(coupling, axes[2:], output)))


@rule('cdist', '_cdist_forward')
def distances(coupling: Coupling, operation: Operation) -> None:
    a, b = first_tensor(operation), operation.args[1]
    left, right = coupling.axes(a), coupling.axes(b)
    coupling.contract(a, left[-1], b, right[-1])
    coupling.assign(operation.outputs[0], (*left[:-1], right[-2]))
