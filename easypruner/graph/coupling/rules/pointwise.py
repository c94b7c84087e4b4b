"""Rules for operations that work element by element, with broadcasting, and for reductions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from easypruner.graph.coupling.axes import Axis
from easypruner.graph.coupling.coupling import Coupling
from easypruner.graph.coupling.rules.arguments import (
    argument,
    wrap,
    wrap_all,
)
from easypruner.graph.coupling.rules.registration import rule
from easypruner.graph.recording.tape import Operation


def broadcast(coupling: Coupling, every: Iterable[Sequence[Axis]], count: int) -> list[Axis]:
    """Couple the axes that broadcasting lines up; return the axes of the result.

    Args:
        coupling: to couple them in.
        every: the axes of each tensor.
        count: how many dimensions the result has.
    """
    result: list[Axis | None] = [None] * count
    for axes in every:
        for position, axis in enumerate(axes, start=count - len(axes)):
            seen = result[position]
            if seen is None or seen.size == 1:
                result[position] = axis
            elif axis.size != 1:
                result[position] = coupling.couple(seen, axis)
    return [coupling.make_constant(1) if axis is None else axis for axis in result]


@rule(
    'pointwise', 'clone', 'alias', 'detach', 'contiguous', '_to_copy', 'lift_fresh',
    'lift_fresh_copy', 'dropout', 'native_dropout', 'bernoulli', '_prelu_kernel', 'prelu', 'where',
    'masked_fill', 'copy', 'clamp', 'rrelu_with_noise', 'gelu', 'nan_to_num', '_conj', 'real',
    'zeros_like', 'ones_like', 'empty_like', 'full_like', 'rand_like', 'randn_like', 'fill',
    'zero', '_fused_dropout', 'to', 'uniform', 'normal', 'conj', 'view_as_real_copy', '_neg_view',
    'random', 'addcmul', 'lerp', 'fake_quantize_per_tensor_affine_cachemask',
    'hardswish', 'hardsigmoid', 'hardtanh', 'relu6', 'mish', 'softplus', 'elu', 'celu', 'selu',
    'leaky_relu', 'hardshrink', 'softshrink', 'threshold', 'log_sigmoid_forward', 'logit', 'relu',
)  # fmt: skip
def pointwise(coupling: Coupling, operation: Operation) -> None:
    """Couple the axes that broadcasting lines up: entry works on entry."""
    tensors = operation.tensors
    for output in operation.outputs:
        axes = broadcast(coupling, map(coupling.axes_of, tensors), output.dim())
        if not coupling.has_axes(output):
            coupling.assign(output, axes)
    for position, tensor in enumerate(tensors):
        if coupling.parameter_of(tensor) is not None:
            kind = operation.name.removesuffix('_')
            coupling.note_use(tensor, f'{kind}.{_argument_name(operation, position)}')


def _argument_name(operation: Operation, position: int) -> str:
    names = operation.func._schema.arguments
    return str(names[position].name) if position < len(names) else str(position)


def _position_of_dim(operation: Operation) -> int | None:
    """Return the position of the argument ``dim``; None if the overload has none."""
    names = [entry.name for entry in operation.func._schema.arguments]
    return names.index('dim') if 'dim' in names else None


@rule(
    'mean', 'sum', 'amax', 'amin', 'var', 'std', 'var_mean', 'std_mean', 'norm', 'logsumexp',
    'prod', 'any', 'all', 'linalg_vector_norm', 'nansum', 'count_nonzero', 'aminmax',
)  # fmt: skip
def reduce(coupling: Coupling, operation: Operation) -> None:
    """Drop the axes that are reduced; their channels are mixed."""
    position = _position_of_dim(operation)
    dims = None if position is None else argument(operation, position, 'dim')
    _reduce(coupling, operation, wrap_all(dims, operation.tensors[0].dim()))


@rule('max', 'min', 'median', 'mode', 'argmax', 'argmin')
def choose(coupling: Coupling, operation: Operation) -> None:
    """Drop the axes along which an entry is chosen; freeze them where its position is returned."""
    x = operation.tensors[0]
    if len(operation.tensors) == 2:
        pointwise(coupling, operation)
        return
    given = None if _position_of_dim(operation) is None else argument(operation, 1, 'dim')
    dims = wrap_all(given, x.dim())
    if operation.name.startswith('arg'):
        for dim in dims:
            axis = coupling.axes_of(x)[dim]
            coupling.freeze(axis, 'the position of a channel is used as a value')
    _reduce(coupling, operation, dims)


def _reduce(coupling: Coupling, operation: Operation, dims: tuple[int, ...]) -> None:
    axes = coupling.axes_of(operation.tensors[0])
    for dim in dims:
        coupling.note_mixing(axes[dim])
    for output in operation.outputs:
        if output.dim() == len(axes):
            one = coupling.make_constant(1)
            kept = [one if dim in dims else axis for dim, axis in enumerate(axes)]
        else:
            kept = [axis for dim, axis in enumerate(axes) if dim not in dims]
        coupling.assign(output, kept)


@rule('softmax', '_softmax', '_safe_softmax', 'log_softmax', '_log_softmax', 'cumsum', 'cumprod',
      'logcumsumexp', 'renorm')  # fmt: skip
def accumulate(coupling: Coupling, operation: Operation) -> None:
    """Hand all axes on; along one of them an entry depends on the others, so it is mixed."""
    axes = coupling.axes_of(operation.tensors[0])
    position = _position_of_dim(operation)
    assert position is not None
    if axes:
        coupling.note_mixing(axes[argument(operation, position, 'dim')])
    for output in operation.outputs:
        coupling.assign(output, axes)


@rule('sort', 'topk', 'kthvalue', 'argsort', 'msort')
def sort(coupling: Coupling, operation: Operation) -> None:
    """Freeze the axis that is sorted: where a channel ends up depends on the others."""
    axes = list(coupling.axes_of(operation.tensors[0]))
    position = {'topk': 2, 'kthvalue': 2}.get(operation.name, 1)
    given = argument(operation, position, 'dim', -1)
    dim = wrap(given if isinstance(given, int) else -1, len(axes))
    if axes:
        coupling.freeze(axes[dim], 'channels are sorted')
    for output in operation.outputs:
        kept = [axis for i, axis in enumerate(axes) if i != dim]
        if axes and output.dim() == len(axes):
            kept.insert(dim, coupling.make_constant(output.shape[dim]))
        coupling.assign(output, kept)


@rule('_weight_norm_interface', '_weight_norm')
def weight_norm(coupling: Coupling, operation: Operation) -> None:
    """Couple lengths with directions; along the other axes each length mixes what it is made of."""
    v, g = operation.args[:2]
    axes = broadcast(coupling, map(coupling.axes_of, (v, g)), v.dim())
    coupling.note_use(v, 'weight_norm.v')
    coupling.note_use(g, 'weight_norm.g')
    dim = wrap(argument(operation, 2, 'dim', 0), v.dim())
    for position, axis in enumerate(axes):
        if position != dim:
            coupling.note_mixing(axis)
    coupling.assign(operation.outputs[0], axes)
    for norms in operation.outputs[1:]:
        coupling.assign(norms, coupling.axes_of(g))
