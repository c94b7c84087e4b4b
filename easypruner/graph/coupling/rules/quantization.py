"""Rules for fake quantization, as in training that is aware of quantization."""

from __future__ import annotations

from easypruner.graph.coupling.axes import Axis
from easypruner.graph.coupling.rules.pointwise import pointwise
from easypruner.graph.coupling.rules.registration import Coupling, Operation, rule

_STATISTICS = ('running_min', 'running_max', 'scale', 'zero_point')

rule(
    'fake_quantize_per_tensor_affine_cachemask',
    '_fake_quantize_per_tensor_affine_cachemask_tensor_qparams',
    '_fake_quantize_learnable_per_tensor_affine',
)(pointwise)


@rule('fake_quantize_per_channel_affine_cachemask', '_fake_quantize_learnable_per_channel_affine')
def quantize_channels(coupling: Coupling, operation: Operation) -> None:
    """Couple scales and zero points with the channels: each channel has its own."""
    axes = list(coupling.axes_of(operation.args[0]))
    _couple_scales(coupling, operation, axes, operation.argument('axis'))
    for output in operation.outputs:
        coupling.assign(output, axes)


@rule('_fused_moving_avg_obs_fq_helper', '_fused_moving_avg_obs_fq_helper_functional')
def observe_and_quantize(coupling: Coupling, operation: Operation) -> None:
    """Couple what is measured for each channel with the channels, or mix them if it is for all."""
    axes = list(coupling.axes_of(operation.args[0]))
    measured = operation.argument('ch_axis') if operation.argument('per_row_fake_quant') else None
    if measured is not None:
        _couple_scales(coupling, operation, axes, measured)
    for dim, axis in enumerate(axes):
        if dim != measured:
            coupling.note_mixing(axis)
    for output in operation.outputs[:2]:
        coupling.assign(output, axes)
    for statistics in operation.outputs[2:]:
        shape = [axes[measured]] if measured is not None else [coupling.make_constant(1)]
        coupling.assign(statistics, shape[-statistics.dim() :] if statistics.dim() else ())


def _couple_scales(coupling: Coupling, operation: Operation, axes: list[Axis], dim: int) -> None:
    """Couple the tensors with one entry for each channel with a dimension, in place."""
    for name in _STATISTICS:
        tensor = operation.argument(name)
        if tensor is not None:
            coupling.note_use(tensor, f'fake_quantize.{name}')
            (axes[dim],) = coupling.couple_parameter(tensor, {0: axes[dim]})
