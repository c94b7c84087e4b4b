"""Rules for operations that work on each channel's plane: pooling, resizing, padding, sampling."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from easypruner.graph.coupling.axes import Axis
from easypruner.graph.coupling.coupling import Coupling
from easypruner.graph.coupling.rules.pointwise import drop_frozen
from easypruner.graph.coupling.rules.registration import rule
from easypruner.graph.coupling.rules.views import merge
from easypruner.graph.recording.tape import Operation

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
    for axis in before:
        coupling.freeze(axis, POSITIONS)
    return [coupling.make_constant(size) for size in output.shape[output.dim() - len(before) :]]


@rule('max_pool1d', 'max_pool1d_with_indices', 'avg_pool1d', 'adaptive_avg_pool1d',
      'adaptive_max_pool1d', 'upsample_linear1d', 'upsample_nearest1d',
      '_upsample_nearest_exact1d', 'reflection_pad1d', 'replication_pad1d',
      'max_pool2d', 'max_pool2d_with_indices', 'avg_pool2d', 'adaptive_avg_pool2d',
      '_adaptive_avg_pool2d', 'adaptive_max_pool2d', 'upsample_bilinear2d', 'upsample_nearest2d',
      'upsample_bicubic2d', '_upsample_bilinear2d_aa', '_upsample_bicubic2d_aa',
      '_upsample_nearest_exact2d', 'reflection_pad2d', 'replication_pad2d', 'max_unpool2d',
      'fractional_max_pool2d',
      'max_pool3d', 'max_pool3d_with_indices', 'avg_pool3d', 'adaptive_avg_pool3d',
      '_adaptive_avg_pool3d', 'adaptive_max_pool3d', 'upsample_trilinear3d', 'upsample_nearest3d',
      '_upsample_nearest_exact3d', 'reflection_pad3d', 'replication_pad3d')  # fmt: skip
def map_planes(coupling: Coupling, operation: Operation) -> None:
    """Hand the channels on. The line, plane or volume of each becomes another one."""
    axes = coupling.axes_of(operation.tensors[0])
    (count,) = (size for size in (1, 2, 3) if f'{size}d' in operation.name)
    for output in operation.outputs:
        extents = extents_after(coupling, axes[-count:], output)
        coupling.assign(output, (*axes[:-count], *extents))


@rule('constant_pad_nd', 'pad')
def pad(coupling: Coupling, operation: Operation) -> None:
    """Freeze the dimensions that grow: the code says to which number they are padded."""
    sizes = zip(operation.tensors[0].shape, operation.output.shape, strict=True)
    grown = [dim for dim, (before, after) in enumerate(sizes) if before != after]
    drop_frozen(coupling, operation, grown, 'channels are padded to a fixed number')


@rule('pixel_shuffle')
def shuffle_pixels(coupling: Coupling, operation: Operation) -> None:
    """Couple each run of channels that becomes the plane of one output channel."""
    *batch, channels, height, width = coupling.axes_of(operation.tensors[0])
    output = operation.output
    planes = coupling.couple_within(channels, operation.args[1] ** 2)
    coupling.assign(output, (*batch, planes, *extents_after(coupling, (height, width), output)))


@rule('pixel_unshuffle')
def unshuffle_pixels(coupling: Coupling, operation: Operation) -> None:
    """Repeat each channel, because its plane becomes a run of output channels."""
    *batch, channels, height, width = coupling.axes_of(operation.tensors[0])
    output = operation.output
    runs = merge(coupling, [channels, coupling.make_constant(operation.args[1] ** 2)])
    coupling.assign(output, (*batch, runs, *extents_after(coupling, (height, width), output)))


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
    for axis in (height, width):
        coupling.freeze(axis, POSITIONS)
    coupling.assign(output, (*batch, columns, coupling.make_constant(output.shape[-1])))


@rule('col2im')
def fold(coupling: Coupling, operation: Operation) -> None:
    """Couple the columns from which one channel is put together."""
    *batch, columns, windows = coupling.axes_of(operation.tensors[0])
    output = operation.output
    channels = coupling.couple_within(columns, columns.size // output.shape[-3])
    coupling.freeze(windows, POSITIONS)
    extents = [coupling.make_constant(size) for size in output.shape[-2:]]
    coupling.assign(output, (*batch, channels, *extents))


@rule('unfold', 'unfold_copy')
def slide_windows(coupling: Coupling, operation: Operation) -> None:
    """Freeze the dimension along which windows slide. The last dimension is within a window."""
    axes, output = list(coupling.axes_of(operation.tensors[0])), operation.output
    (dim,) = operation.dims('dimension')
    coupling.freeze(axes[dim], 'channels are read in sliding windows')
    axes[dim] = coupling.make_constant(output.shape[dim])
    coupling.assign(output, (*axes, coupling.make_constant(output.shape[-1])))


@rule('grid_sampler', 'grid_sampler_2d', 'grid_sampler_3d')
def sample_grid(coupling: Coupling, operation: Operation) -> None:
    """Hand the channels on. The coordinates at which planes are sampled stay."""
    x, grid = operation.args[:2]
    batch, channels, *extents = coupling.axes_of(x)
    coupling.freeze_tensor(grid, 'coordinates of samples')
    output = operation.output
    coupling.assign(output, (batch, channels, *extents_after(coupling, extents, output)))


@rule('torchvision::roi_align', 'torchvision::roi_pool')
def pool_regions(coupling: Coupling, operation: Operation) -> None:
    """Hand the channels on. The coordinates of the regions stay."""
    x, boxes = operation.args[:2]
    coupling.freeze_tensor(boxes, 'coordinates of regions')
    _, channels, *extents = coupling.axes_of(x)
    for output in operation.outputs:
        regions = coupling.make_constant(output.shape[0])
        coupling.assign(output, (regions, channels, *extents_after(coupling, extents, output)))


@rule('fft_fft2', '_fft_r2c', '_fft_c2r', '_fft_c2c')
def transform(coupling: Coupling, operation: Operation) -> None:
    """Freeze the dimensions that are transformed: each frequency depends on all entries."""
    drop_frozen(coupling, operation, operation.dims(), 'a Fourier transform over channels')
