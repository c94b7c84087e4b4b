"""Rules for operations that sum over channels: convolutions and matrix products."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import takewhile

import numpy as np
from torch import Tensor

from easypruner.graph.coupling.axes import Axis
from easypruner.graph.coupling.rules.pointwise import broadcast
from easypruner.graph.coupling.rules.registration import Coupling, Operation, rule
from easypruner.graph.coupling.rules.spatial import KERNEL, extents_after, make_extent


@rule('convolution', '_convolution', 'conv1d', 'conv2d', 'conv3d', 'mkldnn_convolution')
def convolve(coupling: Coupling, operation: Operation) -> None:
    """Couple the channels with the weight that sums over them, and the bias with the outputs."""
    x, weight = operation.args[:2]
    groups, transposed = operation.argument('groups'), bool(operation.argument('transposed'))
    output = operation.output
    coupling.note_use(weight, 'convolution.weight', output.shape[2:])
    batch, channels, *extents = coupling.axes_of(x)
    given = {
        dim: coupling.make_constant(size, KERNEL) for dim, size in enumerate(weight.shape[2:], 2)
    }
    if groups == 1:
        reader, producer = (0, 1) if transposed else (1, 0)
        kernel = coupling.couple_parameter(weight, {reader: channels, **given}, reads=reader)
        out = kernel[producer]
    elif groups == weight.shape[0] and weight.shape[1] == 1:
        kernel = coupling.couple_parameter(weight, {0: channels, **given})
        out = kernel[0]
        coupling.note_width('groups', out)
    else:
        kernel = coupling.couple_parameter(weight, given)
        name = coupling.parameter_of(weight)
        one = groups == weight.shape[0] or weight.shape[1] == 1
        # All groups stay if each belongs to an image of a batch, or to a channel of an input.
        of_groups = kernel[0] if groups == weight.shape[0] and not transposed else channels
        if (one and not of_groups.is_constant) or coupling.grouped.takes_wholes(name):
            group, out = _couple_whole_groups(coupling, channels, kernel, groups, transposed)
            if name is not None and not one:
                coupling.grouped.note(name, group)
        else:
            out = _couple_within_groups(coupling, channels, kernel, groups, transposed)
            summed = kernel[0] if transposed else kernel[1]
            if name is None and not _are_of_one_parameter(coupling, kernel[0], kernel[1]):
                coupling.note_mixing(summed)
            else:
                coupling.note_reading(summed)
    _add_bias(coupling, operation, 'convolution', out)
    after = _convolve_extents(coupling, operation, extents)
    coupling.assign(output, (batch, out, *after))
    # A reshape may have put channels into the batch or an extent.
    positions = extents if transposed else after
    coupling.add_macs(math.prod(weight.shape[2:]), batch, *positions, kernel[0], kernel[1])


def _convolve_extents(
    coupling: Coupling, operation: Operation, extents: Sequence[Axis]
) -> list[Axis]:
    """Return the extents that a convolution makes of others.

    A convolution may run along channels, as in efficient channel attention. If it makes one value
    of each channel and its neighbours, channels may go, but are mixed. One that reads each channel
    alone mixes nothing.
    """
    kernel, after = operation.args[1].shape[2:], operation.output.shape[2:]
    strides = tuple(operation.argument('stride')) * len(extents)
    result = []
    for axis, width, size, stride in zip(extents, kernel, after, strides, strict=False):
        if axis.is_constant or size != axis.size or stride != 1:
            result.append(make_extent(coupling, axis, size))
        else:
            if width != 1:
                coupling.note_mixing(axis)
            result.append(axis)
    return result


def _couple_whole_groups(
    coupling: Coupling, channels: Axis, kernel: tuple[Axis, ...], groups: int, transposed: bool
) -> tuple[Axis, Axis]:
    """Couple all channels of a group; return the axis of the groups, and that of the output.

    There is no other way if a group has one channel on one side, as in a depthwise convolution.
    """
    first, second = kernel[:2]
    coupling.freeze(second, 'the channels within one group of a grouped convolution')
    sides = [coupling.couple_within(axis, axis.size // groups) for axis in (first, channels)]
    group = coupling.couple_all(sides)
    coupling.note_width('groups', group)
    return group, group.repeated(second.size) if transposed else first


def _couple_within_groups(
    coupling: Coupling, channels: Axis, kernel: tuple[Axis, ...], groups: int, transposed: bool
) -> Axis:
    """Couple the same positions of all groups, whose number stays; return the output's axis."""
    first, second = kernel[:2]
    read, rows = (coupling.couple_runs(axis, groups) for axis in (channels, first))
    reader = rows if transposed else second
    coupling.couple(read, reader)
    return second.tiled(groups) if transposed else first


def _are_of_one_parameter(coupling: Coupling, one: Axis, other: Axis) -> bool:
    """Return whether axes are dimensions of one parameter, as of weights scaled for each image."""
    dims, others = (
        {
            (owner.param, owner.dim)
            for owner in coupling.axes.owners.values()
            if owner.reads is None and np.isin(axis.nodes[:1], owner.axis.ids).any()
        }
        for axis in (one, other)
    )
    return any(a == b and i != j for a, i in dims for b, j in others)


def _add_bias(coupling: Coupling, operation: Operation, kind: str, out: Axis) -> None:
    """Couple the bias of an operation, if it has one, with the channels that it makes."""
    bias = operation.argument('bias')
    if bias is not None:
        coupling.note_use(bias, f'{kind}.bias')
        coupling.couple_parameter(bias, {0: out})


@rule('linear')
def linear(coupling: Coupling, operation: Operation) -> None:
    """Couple the last axis with the weight's columns, and the bias with its rows."""
    x, weight = operation.args[:2]
    coupling.note_use(weight, 'linear.weight', x.shape[:-1])
    (*rest, channels), (out, reads) = coupling.axes_of(x), coupling.axes_of(weight)
    coupling.contract(x, channels, weight, reads)
    _add_bias(coupling, operation, 'linear', out)
    coupling.assign(operation.output, (*rest, out))
    coupling.add_macs(1, *rest, reads, out)


@rule('mm', 'matmul', 'mv', 'dot', 'bmm', 'vdot')
def multiply(coupling: Coupling, operation: Operation) -> None:
    """Couple the columns of the left matrix with the rows of the right one."""
    coupling.assign(operation.output, _multiply(coupling, *operation.args[:2]))


@rule('addmm', 'baddbmm', 'addmv', 'addbmm', '_sparse_addmm')
def multiply_and_add(coupling: Coupling, operation: Operation) -> None:
    """Couple the axes over which a product sums, and what is added with the product."""
    added, a, b = operation.args[:3]
    result = _multiply(coupling, a, b)
    if operation.name == 'addbmm':
        result = result[1:]
    coupling.note_use(added, 'linear.bias')
    _couple_alike(coupling, result, coupling.axes_of(added))
    coupling.assign(operation.output, result)


@rule('addr')
def add_outer(coupling: Coupling, operation: Operation) -> None:
    """Couple what is added with both sides of an outer product."""
    added, *vectors = operation.args[:3]
    result = [axis for vector in vectors for axis in coupling.axes_of(vector)]
    _couple_alike(coupling, result, coupling.axes_of(added))
    coupling.assign(operation.output, result)


def _couple_alike(coupling: Coupling, axes: list[Axis], others: Sequence[Axis]) -> None:
    """Couple axes, in place, with others that are aligned at the end, where sizes are equal."""
    for position, other in enumerate(others, start=len(axes) - len(others)):
        if other.size == axes[position].size:
            axes[position] = coupling.couple(axes[position], other)


def _multiply(coupling: Coupling, a: Tensor, b: Tensor) -> list[Axis]:
    """Couple the axes over which a (batched) matrix product sums; return those of the result."""
    for tensor, other in ((a, b), (b, a)):
        if coupling.parameter_of(other) is None:
            coupling.note_use(tensor, 'linear.weight', other.shape[:-1])
    left, right = list(coupling.axes_of(a)), list(coupling.axes_of(b))
    summed_left = left.pop()
    summed_right = right.pop(-2 if len(right) > 1 else 0)
    rows = [left.pop()] if left else []
    columns = [right.pop()] if right else []
    if any(_is_weight(coupling, tensor) for tensor in (a, b)):
        coupling.contract(a, summed_left, b, summed_right)
    else:
        _compare(coupling, summed_left, summed_right)
        # Of two parts of one split the last counts: the one that the result has. Where a tensor is
        # multiplied with itself, the result has its rows twice, and the width is summed over. So it
        # is where the rows may be heads of queries that share the channels of a layer as keys.
        with_itself = summed_left.part is not None and summed_left.part == summed_right.part
        of_queries, of_keys = [summed_left, *rows], [summed_right, *columns]
        if with_itself or summed_right.part is None:
            of_queries.reverse()
        if with_itself:
            of_keys.reverse()
        coupling.note_attention((left, of_queries), (right, of_keys))
    batches = sorted((left, right), key=len, reverse=True)
    result = [*broadcast(coupling, batches, len(batches[0])), *rows, *columns]
    summed = summed_left if summed_left.is_constant else summed_right
    coupling.add_macs(1, summed, *result)
    return result


def _is_weight(coupling: Coupling, tensor: Tensor) -> bool:
    """Return whether a factor of a product is a weight.

    A stack of matrices that a layer makes of a parameter, such as learned queries, is none.
    """
    stacked = tensor.dim() > 2
    return coupling.parameter_of(tensor) is not None and not (
        stacked and coupling.axes.is_multiplied(tensor)
    )


def _compare(coupling: Coupling, axis: Axis, other: Axis) -> None:
    """Couple the widths of queries and keys. Their products are scaled by the width."""
    coupling.couple(axis, other)
    for each in (axis, other):
        coupling.note_mixing(each)


@rule('_scaled_dot_product_flash_attention_for_cpu', '_scaled_dot_product_flash_attention',
      '_scaled_dot_product_efficient_attention', '_scaled_dot_product_attention_math',
      'scaled_dot_product_attention', '_scaled_dot_product_fused_attention_overrideable',
      '_scaled_dot_product_cudnn_attention',
      '_scaled_dot_product_attention_math_for_mps')  # fmt: skip
def attend(coupling: Coupling, operation: Operation) -> None:
    """Couple queries with keys by their width, and keys with values by their number."""
    q, k, v = operation.args[:3]
    (*batch, rows, width), (*batch_k, keys, width_k), (*batch_v, values, out) = (
        coupling.axes_of(t) for t in (q, k, v)
    )
    coupling.note_attention((batch, [width]), (batch_k, [width_k]), (batch_v, [out]))
    for shared in (batch_k, batch_v):
        _couple_heads(coupling, batch, shared)
    _compare(coupling, width, width_k)
    coupling.couple(keys, values)
    coupling.note_mixing(keys)
    mask = operation.argument('attn_mask', 'attn_bias')
    if isinstance(mask, Tensor):
        _couple_alike(coupling, [*batch, rows, keys], coupling.axes_of(mask))
    coupling.assign(operation.output, (*batch, rows, out))
    for extra in operation.outputs[1:]:
        coupling.assign(extra, _alike(coupling, [*batch, rows, keys], extra))
    coupling.add_macs(1, *batch, rows, keys, width)
    coupling.add_macs(1, *batch, rows, keys, out)


def _couple_heads(coupling: Coupling, batch: list[Axis], shared: Sequence[Axis]) -> None:
    """Couple the heads of queries, in place, with those of keys or values.

    Several heads of queries may share a head of keys. If that stays, the queries of each lose the
    same positions.
    """
    for dim, (axis, other) in enumerate(zip(batch, shared, strict=True)):
        if axis.size == other.size:
            batch[dim] = coupling.couple(axis, other)
        elif other.size != 1 and axis.size % other.size == 0:
            count = axis.size // other.size
            if other.is_constant:
                coupling.couple_runs(axis, other.size)
            else:
                coupling.couple(axis, other.repeated(count))


def _alike(coupling: Coupling, axes: Sequence[Axis], extra: Tensor) -> list[Axis]:
    """Return the axes of a further output: those of the first dimensions that have their sizes."""
    pairs = takewhile(lambda pair: pair[0].size == pair[1], zip(axes, extra.shape, strict=False))
    known = [axis for axis, _ in pairs]
    return known + [coupling.make_constant(size) for size in extra.shape[len(known) :]]


@rule('_trilinear')
def multiply_three(coupling: Coupling, operation: Operation) -> None:
    """Couple three tensors, broadcast and multiplied, along each dimension, as in a bilinear form.

    The operation names the dimensions that each of them lacks, and those over which it sums.
    """
    given = [
        (tensor, _expanded(coupling.axes_of(tensor), lacks))
        for tensor, lacks in zip(operation.args[:3], operation.args[3:6], strict=True)
    ]
    for tensor, _ in given:
        coupling.note_use(tensor, 'linear.weight')
    summed, result = operation.args[6], []
    for dim in range(len(given[0][1])):
        (first, axis), *others = (
            (tensor, own) for tensor, axes in given if (own := axes[dim]) is not None
        )
        for tensor, other in others:
            if dim in summed:
                coupling.contract(first, axis, tensor, other)
            else:
                axis = coupling.couple(axis, other)
        if dim not in summed:
            result.append(axis)
    coupling.assign(operation.output, result)


def _expanded(axes: Sequence[Axis], lacks: Iterable[int]) -> list[Axis | None]:
    """Return axes with None at the dimensions that a tensor lacks."""
    expanded: list[Axis | None] = list(axes)
    for dim in sorted(lacks):
        expanded.insert(dim, None)
    return expanded


@rule('torchvision::deform_conv2d')
def convolve_deformed(coupling: Coupling, operation: Operation) -> None:
    """Couple channels and weight as in a convolution. The offsets stay."""
    x, weight, offset, mask, bias = operation.args[:5]
    groups, offset_groups = operation.args[11:13]
    batch, channels, *extents = coupling.axes_of(x)
    kernel = coupling.axes_of(weight)
    coupling.note_use(weight, 'convolution.weight')
    for axis in (*kernel[2:], coupling.axes_of(offset)[1], coupling.axes_of(mask)[1]):
        coupling.freeze(axis, KERNEL)
    if groups == 1:
        # The channels follow each other by the offsets that move them.
        coupling.couple_runs(channels, offset_groups)
        coupling.contract(x, channels, weight, kernel[1])
    else:
        for axis in (channels, *kernel[:2]):
            coupling.freeze(axis, 'a deformable convolution in groups')
    out = coupling.couple(kernel[0], coupling.axes_of(bias)[0])
    coupling.note_use(bias, 'convolution.bias')
    output = operation.output
    coupling.assign(output, (batch, out, *extents_after(coupling, extents, output)))


@rule('cdist', '_cdist_forward', '_euclidean_dist')
def measure_distances(coupling: Coupling, operation: Operation) -> None:
    """Couple the coordinates of the points on both sides, over which the operation sums."""
    a, b = operation.tensors[0], operation.args[1]
    left, right = coupling.axes_of(a), coupling.axes_of(b)
    coupling.contract(a, left[-1], b, right[-1])
    coupling.assign(operation.output, (*left[:-1], right[-2]))
