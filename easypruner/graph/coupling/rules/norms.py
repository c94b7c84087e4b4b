"""Rules for normalization layers."""

from __future__ import annotations

from torch import Tensor

from easypruner.graph.coupling.axes import Axis
from easypruner.graph.coupling.rules.registration import Coupling, Operation, rule

_PER_CHANNEL = ('weight', 'bias', 'running_mean', 'running_var')


@rule('native_batch_norm', '_native_batch_norm_legit', '_native_batch_norm_legit_no_training',
      '_native_batch_norm_legit_functional', '_batch_norm_impl_index', 'cudnn_batch_norm',
      'batch_norm', '_batch_norm_with_update', '_batch_norm_with_update_functional',
      '_batch_norm_no_update')  # fmt: skip
def batch_norm(coupling: Coupling, operation: Operation) -> None:
    """Couple weight, bias and statistics with the channels: each channel has its own."""
    axes = coupling.axes_of(operation.args[0])
    for name, tensor in zip(_PER_CHANNEL, operation.args[1:5], strict=False):
        if isinstance(tensor, Tensor):
            coupling.note_use(tensor, f'batch_norm.{name}')
            coupling.couple_parameter(tensor, {0: axes[1]})
    if len(operation.args) > 5 and operation.args[5] is True:
        # The statistics are those of the batch. For a standardized weight they are of its fan-in.
        for axis in (axes[0], *axes[2:]):
            coupling.note_mixing(axis)
    coupling.assign(operation.output, axes)
    for extra in operation.outputs[1:]:
        coupling.assign(extra, [axes[1] if extra.numel() else coupling.make_constant(0)])


@rule('native_layer_norm', 'layer_norm', '_fused_rms_norm', 'rms_norm')
def layer_norm(coupling: Coupling, operation: Operation) -> None:
    """Couple weight and bias with the normalized dimensions, whose channels are mixed."""
    x, shape = operation.args[:2]
    count = len(shape)
    axes = list(coupling.axes_of(x))
    kind = 'rms_norm' if 'rms' in operation.name else 'layer_norm'
    _couple_weights(coupling, operation, kind, axes, len(axes) - count)
    if count == 1 and operation.argument('weight') is None:
        coupling.note_width('normalized_shape', axes[-1])
    for axis in axes[-count:]:
        coupling.note_mixing(axis)
    coupling.assign(operation.output, axes)
    one = coupling.make_constant(1)
    for extra in operation.outputs[1:]:
        coupling.assign(extra, [*axes[:-count], *([one] * count)])


@rule('native_group_norm', 'group_norm')
def group_norm(coupling: Coupling, operation: Operation) -> None:
    """Couple weight and bias with the channels, of which all groups lose the same positions.

    If each channel is a group of its own, it goes with its group, as in an instance norm.
    """
    groups = operation.argument('group', 'num_groups')
    axes = list(coupling.axes_of(operation.args[0]))
    _couple_weights(coupling, operation, 'group_norm', axes, 1)
    one_each = axes[1] if axes[1].size == groups else None
    if one_each is not None:
        coupling.note_width('num_groups', axes[1])
    else:
        coupling.couple_runs(axes[1], groups)
        coupling.note_mixing(axes[1])
    coupling.assign(operation.output, axes)
    for extra in operation.outputs[1:]:
        coupling.assign(extra, (axes[0], one_each or coupling.make_constant(groups)))


def _couple_weights(
    coupling: Coupling, operation: Operation, kind: str, axes: list[Axis], start: int
) -> None:
    """Couple weight and bias with the axes from ``start`` on, in place."""
    for name in ('weight', 'bias'):
        tensor = operation.argument(name)
        if tensor is not None:
            coupling.note_use(tensor, f'{kind}.{name}')
            for position, axis in enumerate(coupling.axes_of(tensor), start=start):
                axes[position] = coupling.couple(axes[position], axis)


@rule('local_response_norm')
def local_response_norm(coupling: Coupling, operation: Operation) -> None:
    """Hand all axes on. The channels are mixed, because each is divided by its neighbours."""
    axes = coupling.axes_of(operation.args[0])
    coupling.note_mixing(axes[1])
    coupling.assign(operation.output, axes)
