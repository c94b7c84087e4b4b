"""Rules for operations that work on each channel's plane: pooling, resizing, padding, sampling."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from easypruner.graph.coupling.coupling import Axis, Coupling
from easypruner.graph.coupling.rules import rule
from easypruner.graph.coupling.rules.arguments import argument, first_tensor
from easypruner.graph.coupling.rules.views import merge
from easypruner.graph.recording.tape import Operation

POSITIONS = 'channels are read as positions'

_PLANES = {
    1: ('max_pool1d', 'max_pool1d_with_indices', 'avg_pool1d', 'adaptive_avg_pool1d',
        'adaptive_max_pool1d', 'upsample_linear1d', 'upsample_nearest1d',
        '_upsample_nearest_exact1d', 'reflection_pad1d', 'replication_pad1d'),
    2: ('max_pool2d', 'max_pool2d_with_indices', 'avg_pool2d', 'adaptive_avg_pool2d',
        '_adaptive_avg_pool2d', 'adaptive_max_pool2d', 'upsample_bilinear2d', 'upsample_nearest2d',
        'upsample_bicubic2d', '_upsample_bilinear2d_aa', '_upsample_bicubic2d_aa',
        '_upsample_nearest_exact2d', 'reflection_pad2d', 'replication_pad2d', 'max_unpool2d',
        'fractional_max_pool2d'),
    3: ('max_pool3d', 'max_pool3d_with_indices', 'avg_pool3d', 'adaptive_avg_pool3d',
        '_adaptive_avg_pool3d', 'adaptive_max_pool3d', 'upsample_trilinear3d', 'upsample_nearest3d',
        '_upsample_nearest_exact3d', 'reflection_pad3d', 'replication_pad3d'),
}  # fmt: skip


def extents_after(coupling: Coupling, before: Sequence[Axis], output: Tensor) -> list[Axis]:
    """Return the last axes of ``output``, the extents that an operation makes of ``before``.

    Where code reads channels as positions, they must stay: neighbours would become others.
    """
    for axis in before:
        coupling.fix(axis, POSITIONS)
    return [coupling.constant(size) for size in output.shape[output.dim() - len(before) :]]


def _plane_rule(count: int) -> None:
    @rule(*_PLANES[count])
    def per_plane(coupling: Coupling, operation: Operation) -> None:
        axes = coupling.axes(first_tensor(operation))
        for output in operation.outputs:
            spatial = extents_after(coupling, axes[-count:], output)
            coupling.assign(output, (*axes[:-count], *spatial))


for _count in _PLANES:
    _plane_rule(_count)


@rule('constant_pad_nd', 'pad')
def constant_pad(coupling: Coupling, operation: Operation) -> None:
    x = first_tensor(operation)
    output = operation.outputs[0]
    result = []
    for axis, before, after in zip(coupling.axes(x), x.shape, output.shape, strict=True):
        if before == after:
            result.append(axis)
            continue
        coupling.fix(axis, 'channels are padded to a fixed number')
        result.append(coupling.constant(after))
    coupling.assign(output, result)


@rule('pixel_shuffle')
def pixel_shuffle(coupling: Coupling, operation: Operation) -> None:
    x = first_tensor(operation)
    output = operation.outputs[0]
    factor = operation.args[1]
    axes = coupling.axes(x)
    channels = axes[-3]
    if not coupling.is_constant(channels):
        grid = channels.reshape(-1, factor * factor)
        lead = grid[:, 0]
        for column in grid.T[1:]:
            lead = coupling.couple(lead, column)
        channels = lead
    else:
        channels = coupling.constant(output.shape[-3])
    coupling.assign(output, (*axes[:-3], channels, *extents_after(coupling, axes[-2:], output)))


@rule('pixel_unshuffle')
def pixel_unshuffle(coupling: Coupling, operation: Operation) -> None:
    axes = coupling.axes(first_tensor(operation))
    output = operation.outputs[0]
    factor = operation.args[1]
    inner = coupling.constant(factor * factor)
    channels = merge(coupling, [axes[-3], inner])
    coupling.assign(output, (*axes[:-3], channels, *extents_after(coupling, axes[-2:], output)))


@rule('channel_shuffle', 'native_channel_shuffle')
def channel_shuffle(coupling: Coupling, operation: Operation) -> None:
    axes = list(coupling.axes(first_tensor(operation)))
    groups = operation.args[1]
    channels = axes[1]
    if not coupling.is_constant(channels):
        rows = channels.reshape(groups, -1)
        for row in rows[1:]:
            coupling.couple(rows[0], row)
        axes[1] = rows.T.reshape(-1)
    coupling.assign(operation.outputs[0], axes)


@rule('im2col')
def unfold(coupling: Coupling, operation: Operation) -> None:
    x = first_tensor(operation)
    output = operation.outputs[0]
    axes = coupling.axes(x)
    kernel = output.shape[-2] // x.shape[-3]
    columns = merge(coupling, [axes[-3], coupling.constant(kernel)])
    for axis in axes[-2:]:
        coupling.fix(axis, POSITIONS)
    coupling.assign(output, (*axes[:-3], columns, coupling.constant(output.shape[-1])))


@rule('col2im')
def fold(coupling: Coupling, operation: Operation) -> None:
    x = first_tensor(operation)
    output = operation.outputs[0]
    axes = coupling.axes(x)
    channels = output.shape[-3]
    kernel = x.shape[-2] // channels
    axis = axes[-2]
    if coupling.is_constant(axis):
        kept = coupling.constant(channels)
    else:
        grid = axis.reshape(channels, kernel)
        kept = grid[:, 0]
        for column in grid.T[1:]:
            if not np.array_equal(column, kept):
                kept = coupling.couple(kept, column)
    coupling.fix(axes[-1], POSITIONS)
    spatial = [coupling.constant(size) for size in output.shape[-2:]]
    coupling.assign(output, (*axes[:-2], kept, *spatial))


@rule('unfold', 'unfold_copy')
def windows(coupling: Coupling, operation: Operation) -> None:
    axes = list(coupling.axes(first_tensor(operation)))
    output = operation.outputs[0]
    dim = operation.args[1] % len(axes)
    coupling.fix(axes[dim], 'channels are read in sliding windows')
    axes[dim] = coupling.constant(output.shape[dim])
    coupling.assign(output, (*axes, coupling.constant(output.shape[-1])))


@rule('grid_sampler', 'grid_sampler_2d', 'grid_sampler_3d')
def grid_sampler(coupling: Coupling, operation: Operation) -> None:
    x, grid = operation.args[:2]
    axes = coupling.axes(x)
    for axis in coupling.axes(grid):
        coupling.fix(axis, 'coordinates of samples')
    output = operation.outputs[0]
    coupling.assign(output, (*axes[:2], *extents_after(coupling, axes[2:], output)))


@rule('roi_align', 'roi_pool')
def region_pool(coupling: Coupling, operation: Operation) -> None:
    x, boxes = operation.args[:2]
    for axis in coupling.axes(boxes):
        coupling.fix(axis, 'coordinates of regions')
    _, channels, *plane = coupling.axes(x)
    for output in operation.outputs:
        regions = coupling.constant(output.shape[0])
        coupling.assign(output, (regions, channels, *extents_after(coupling, plane, output)))


@rule('fft_fft2', '_fft_r2c', '_fft_c2r', '_fft_c2c')
def fourier(coupling: Coupling, operation: Operation) -> None:
    x = first_tensor(operation)
    axes = list(coupling.axes(x))
    output = operation.outputs[0]
    for dim in argument(operation, 1, 'dim'):
        coupling.fix(axes[dim], 'a Fourier transform over channels')
        axes[dim] = coupling.constant(output.shape[dim])
    coupling.assign(output, axes)
