"""Rules for operations that work on each channel's plane: pooling, resizing, padding, sampling."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from easypruner.graph.coupling.axes import Axis
from easypruner.graph.coupling.rules.pointwise import drop_frozen
from easypruner.graph.coupling.rules.registration import Coupling, Operation, rule
from easypruner.graph.coupling.rules.views import merge

KERNEL = 'the extent of a convolution kernel'
POSITIONS = 'channels are read as positions'


def extents_after(coupling: Coupling, before: Sequence[Axis], output: Tensor) -> list[Axis]:
    """Return the extents that an operation makes of others: the last axes of its output.

    If code has put channels there, they are read as positions. Then they must stay, because each
    would get other neighbours.

    Args:
        coupling: makes the axes.
        before: the extents of the operation's input.
        output: the output.
    """
    sizes = output.shape[output.dim() - len(before) :]
    return [make_extent(coupling, axis, size) for axis, size in zip(before, sizes, strict=True)]


def make_extent(coupling: Coupling, before: Axis, size: int) -> Axis:
    """Return an extent of the given size that an operation makes of another one, which stays."""
    coupling.freeze(before, POSITIONS)
    return coupling.make_constant(size)


_FOR_1D_TO_3D = (
    'max_pool{}d', 'max_pool{}d_with_indices', 'avg_pool{}d', 'adaptive_avg_pool{}d',
    '_adaptive_avg_pool{}d', 'adaptive_max_pool{}d', 'upsample_nearest{}d',
    '_upsample_nearest_exact{}d', 'reflection_pad{}d', 'replication_pad{}d',
)  # fmt: skip


@rule(*(name.format(count) for name in _FOR_1D_TO_3D for count in (1, 2, 3)), 'upsample_linear1d',
      'upsample_bilinear2d', 'upsample_bicubic2d', '_upsample_bilinear2d_aa',
      '_upsample_bicubic2d_aa', 'max_unpool2d', 'fractional_max_pool2d',
      'upsample_trilinear3d')  # fmt: skip
def map_planes(coupling: Coupling, operation: Operation) -> None:
    """Hand the channels on. The line, plane or volume of each becomes another one.

    An extent along which each index is pooled alone stays the same: code may put channels there, as
    where a pool takes the mean of the height only.
    """
    axes = coupling.axes_of(operation.tensors[0])
    (count,) = (size for size in (1, 2, 3) if f'{size}d' in operation.name)
    kept = [
        axis.size if alone else 0
        for axis, alone in zip(axes[-count:], _are_alone(operation, count), strict=True)
    ]
    for output in operation.outputs:
        extents = [
            before if size == same else make_extent(coupling, before, size)
            for before, same, size in zip(axes[-count:], kept, output.shape[-count:], strict=True)
        ]
        coupling.assign(output, (*axes[:-count], *extents))


def _are_alone(operation: Operation, count: int) -> list[bool]:
    """Return for each extent whether a pool takes its indices one by one if the size stays."""
    if 'adaptive' in operation.name:
        return [True] * count
    if not operation.name.startswith(('max_pool', 'avg_pool')):
        return [False] * count
    kernel = operation.argument('kernel_size')
    return [size == 1 for size in (kernel * count if len(kernel) == 1 else kernel)]


@rule('constant_pad_nd')
def pad(coupling: Coupling, operation: Operation) -> None:
    """Put constant indices before and behind the axes that grow, and cut those that shrink.

    Where code computes the number of new indices from a width, a trial finds the groups at fault.
    """
    axes = list(coupling.axes_of(operation.tensors[0]))
    amounts = operation.argument('pad')
    for number in range(len(amounts) // 2):
        dim = len(axes) - 1 - number
        axes[dim] = _padded(coupling, axes[dim], *amounts[2 * number : 2 * number + 2])
    coupling.assign(operation.output, axes)


def _padded(coupling: Coupling, axis: Axis, before: int, behind: int) -> Axis:
    if not before and not behind:
        return axis
    if axis.is_constant:
        return axis.resized(axis.size + before + behind)
    inner = axis[max(-before, 0) : axis.size - max(-behind, 0)]
    sides = [coupling.make_constant(max(amount, 0)) for amount in (before, behind)]
    return Axis.joined([side for side in (sides[0], inner, sides[1]) if side.size])


@rule('pad')
def pad_by_mode(coupling: Coupling, operation: Operation) -> None:
    """Freeze the dimensions that grow."""
    sizes = zip(operation.tensors[0].shape, operation.output.shape, strict=True)
    grown = [dim for dim, (before, after) in enumerate(sizes) if before != after]
    drop_frozen(coupling, operation, grown, 'channels are padded to a fixed number')


@rule('pixel_shuffle', 'pixel_unshuffle')
def shuffle_pixels(coupling: Coupling, operation: Operation) -> None:
    """Couple each run of channels that becomes a plane, or repeat each whose plane becomes one."""
    *batch, channels, height, width = coupling.axes_of(operation.tensors[0])
    output, area = operation.output, operation.args[1] ** 2
    if operation.name == 'pixel_shuffle':
        made = coupling.couple_within(channels, area)
    else:
        made = merge(coupling, [channels, coupling.make_constant(area)])
    coupling.assign(output, (*batch, made, *extents_after(coupling, (height, width), output)))


@rule('channel_shuffle', 'native_channel_shuffle')
def shuffle_channels(coupling: Coupling, operation: Operation) -> None:
    """Reorder the channels. All groups lose the same positions, so that they stay equal."""
    batch, channels, *extents = coupling.axes_of(operation.tensors[0])
    groups = operation.args[1]
    coupling.couple_runs(channels, groups)
    coupling.assign(operation.output, (batch, channels.transposed(groups), *extents))


@rule('im2col')
def unfold(coupling: Coupling, operation: Operation) -> None:
    """Repeat each channel for every position of the kernel. Planes become a row of windows."""
    *batch, channels, height, width = coupling.axes_of(operation.tensors[0])
    output = operation.output
    kernel = coupling.make_constant(output.shape[-2] // channels.size)
    columns = merge(coupling, [channels, kernel])
    coupling.freeze(height, POSITIONS)
    (windows,) = extents_after(coupling, [width], output)
    coupling.assign(output, (*batch, columns, windows))


@rule('col2im')
def fold(coupling: Coupling, operation: Operation) -> None:
    """Couple the columns from which one channel is put together.

    If channels and positions in the window were merged to columns, the positions stay.
    """
    *batch, columns, windows = coupling.axes_of(operation.tensors[0])
    output = operation.output
    window = columns.size // output.shape[-3]
    for factor in _last_factors(columns, window):
        coupling.freeze(factor, KERNEL)
    channels = coupling.couple_within(columns, window)
    coupling.freeze(windows, POSITIONS)
    extents = [coupling.make_constant(size) for size in output.shape[-2:]]
    coupling.assign(output, (*batch, channels, *extents))


def _last_factors(axis: Axis, size: int) -> tuple[Axis, ...]:
    """Return the last factors of a merged axis that have a size together; none if none have."""
    for count in range(1, len(axis.factors) + 1):
        last = axis.factors[-count:]
        if math.prod(factor.size for factor in last) == size:
            return last
    return ()


@rule('unfold', 'unfold_copy')
def slide_windows(coupling: Coupling, operation: Operation) -> None:
    """Freeze the dimension along which windows slide. The last dimension is within a window."""
    axes, output = list(coupling.axes_of(operation.tensors[0])), operation.output
    (dim,) = operation.dims('dimension')
    coupling.freeze(axes[dim], 'channels are read in sliding windows')
    axes[dim] = coupling.make_constant(output.shape[dim])
    coupling.assign(output, (*axes, coupling.make_constant(output.shape[-1])))


@rule('unfold_backward')
def add_windows(coupling: Coupling, operation: Operation) -> None:
    """Put windows together, as an inverse Fourier transform does, and hand the other axes on."""
    *axes, within = coupling.axes_of(operation.tensors[0])
    output = operation.output
    dim = operation.argument('dim') % output.dim()
    for axis in (axes[dim], within):
        coupling.freeze(axis, 'channels are added in sliding windows')
    axes[dim] = coupling.make_constant(output.shape[dim])
    coupling.assign(output, axes)


@rule('grid_sampler', 'grid_sampler_2d', 'grid_sampler_3d', 'torchvision::roi_align',
      'torchvision::roi_pool')  # fmt: skip
def sample(coupling: Coupling, operation: Operation) -> None:
    """Hand the channels on. The coordinates at which planes are sampled, or of regions, stay."""
    x, coordinates = operation.args[:2]
    in_regions = operation.name.startswith('torchvision::')
    coupling.freeze_tensor(coordinates, f'coordinates of {"regions" if in_regions else "samples"}')
    batch, channels, *extents = coupling.axes_of(x)
    for output in operation.outputs:
        first = coupling.make_constant(output.shape[0]) if in_regions else batch
        coupling.assign(output, (first, channels, *extents_after(coupling, extents, output)))


@rule('fft_fft2', '_fft_r2c', '_fft_c2r', '_fft_c2c')
def transform(coupling: Coupling, operation: Operation) -> None:
    """Freeze the dimensions that are transformed: each frequency depends on all entries."""
    drop_frozen(coupling, operation, operation.dims(), 'a Fourier transform over channels')
