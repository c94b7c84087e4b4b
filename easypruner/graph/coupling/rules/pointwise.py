"""Rules for operations that work element by element, with broadcasting, and for reductions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from easypruner.graph.coupling.axes import Axis
from easypruner.graph.coupling.rules.registration import Coupling, Operation, rule

_SORTED = 'channels are sorted'


def broadcast(coupling: Coupling, every: Iterable[Sequence[Axis]], count: int) -> list[Axis]:
    """Couple the axes that broadcasting aligns, and return the axes of the result.

    Args:
        coupling: couples the axes.
        every: the axes of each tensor.
        count: the number of dimensions of the result.
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
    'lift_fresh_copy', 'dropout', 'native_dropout', '_prelu_kernel', 'prelu', 'where',
    'masked_fill', 'clamp', 'rrelu_with_noise', 'gelu', 'nan_to_num', '_conj', 'real',
    'zeros_like', 'ones_like', 'empty_like', 'full_like', 'fill', 'zero', '_fused_dropout', 'to',
    'conj', 'view_as_real_copy', '_neg_view', 'addcmul', 'lerp', 'imag', 'complex', 'polar',
    'resolve_conj', 'resolve_neg', 'hardswish', 'hardsigmoid', 'hardtanh', 'relu6', 'mish',
    'softplus', 'elu', 'celu', 'selu', 'leaky_relu', 'hardshrink', 'softshrink', 'threshold',
    'log_sigmoid_forward', 'logit', 'relu', 'floor_divide', 'alias_copy', 'detach_copy',
    '_conj_copy', '_neg_view_copy', 'lift', '_pin_memory', '_lazy_clone',
    'rrelu_with_noise_functional',
)  # fmt: skip
def pointwise(coupling: Coupling, operation: Operation) -> None:
    """Couple the axes that broadcasting aligns: the operation works entry by entry."""
    tensors = operation.tensors
    for output in operation.outputs:
        axes = broadcast(coupling, map(coupling.axes_of, tensors), output.dim())
        if not coupling.has_axes(output):
            coupling.assign(output, axes)
        else:
            coupling.note_writing(output)
    for position, tensor in enumerate(tensors):
        if coupling.parameter_of(tensor) is not None:
            kind, names = operation.name.removesuffix('_'), operation.func._schema.arguments
            name = names[position].name if position < len(names) else position
            coupling.note_use(tensor, f'{kind}.{name}')


@rule('copy')
def overwrite(coupling: Coupling, operation: Operation) -> None:
    """Couple the axes. A buffer that is overwritten as a whole takes those of what is written."""
    target, source = operation.args[:2]
    if target.shape == source.shape and coupling.parameter_of(target) is not None:
        coupling.couple_parameter(target, dict(enumerate(coupling.axes_of(source))))
    pointwise(coupling, operation)
    pairs = zip(
        reversed(coupling.axes_of(target)), reversed(coupling.axes_of(source)), strict=False
    )
    coupling.note_writing(target, [(a, b) for a, b in pairs if a.size == b.size])


def drop(coupling: Coupling, operation: Operation, dims: Sequence[int]) -> None:
    """Hand all axes on but those of some dimensions. An output that has these has new extents."""
    axes = coupling.axes_of(operation.tensors[0])
    for output in operation.outputs:
        if output.dim() == len(axes):
            sizes = zip(axes, output.shape, strict=True)
            kept = [coupling.make_constant(n) if i in dims else a for i, (a, n) in enumerate(sizes)]
        else:
            kept = [axis for i, axis in enumerate(axes) if i not in dims]
        coupling.assign(output, kept)


def drop_frozen(coupling: Coupling, operation: Operation, dims: Sequence[int], reason: str) -> None:
    """Freeze some dimensions and hand the others on."""
    axes = coupling.axes_of(operation.tensors[0])
    for dim in dims:
        coupling.freeze(axes[dim], reason)
    drop(coupling, operation, dims)


@rule(
    'mean', 'sum', 'amax', 'amin', 'var', 'std', 'var_mean', 'std_mean', 'norm', 'logsumexp',
    'prod', 'any', 'all', 'linalg_vector_norm', 'nansum', 'count_nonzero', 'aminmax',
)  # fmt: skip
def reduce(coupling: Coupling, operation: Operation) -> None:
    """Drop the axes that are reduced. Their channels are mixed."""
    axes = coupling.axes_of(operation.tensors[0])
    for dim in operation.dims():
        coupling.note_mixing(axes[dim])
    drop(coupling, operation, operation.dims())


@rule('max', 'min', 'median', 'mode')
def choose(coupling: Coupling, operation: Operation) -> None:
    """Drop the axes along which an entry is chosen, unless it is the larger one of two tensors."""
    family = pointwise if len(operation.tensors) == 2 else reduce
    family(coupling, operation)


@rule('argmax', 'argmin')
def find_position(coupling: Coupling, operation: Operation) -> None:
    """Freeze the axes along which an entry is chosen: a cut would change its position."""
    reason = 'the position of a channel is used as a value'
    drop_frozen(coupling, operation, operation.dims(), reason)


@rule('softmax', '_softmax', '_safe_softmax', 'log_softmax', '_log_softmax', 'cumsum', 'cumprod',
      'logcumsumexp')  # fmt: skip
def accumulate(coupling: Coupling, operation: Operation) -> None:
    """Hand all axes on. One of them is mixed, because its entries depend on each other."""
    axes = coupling.axes_of(operation.tensors[0])
    if axes:
        coupling.note_mixing(axes[operation.argument('dim')])
    for output in operation.outputs:
        coupling.assign(output, axes)


@rule('cummax', 'cummin')
def accumulate_with_positions(coupling: Coupling, operation: Operation) -> None:
    """Freeze the axis along which entries are compared: the result has their positions."""
    axes = coupling.axes_of(operation.tensors[0])
    for dim in operation.dims():
        coupling.freeze(axes[dim], _SORTED)
    for output in operation.outputs:
        coupling.assign(output, axes)


@rule('topk')
def choose_largest(coupling: Coupling, operation: Operation) -> None:
    """Mix the axis of which entries are chosen, if their positions only look others up.

    A router chooses experts so. Else the axis is frozen, as where it is sorted.
    """
    dims = operation.dims()
    axis = coupling.axes_of(operation.tensors[0])[dims[0]]
    if axis.is_constant or not coupling.positions.is_followed:
        sort(coupling, operation)
        return
    coupling.note_mixing(axis)
    coupling.note_minimum(axis, operation.outputs[0].shape[dims[0]])
    coupling.positions.note(operation.outputs[1], axis, coupling.explain(_SORTED))
    drop(coupling, operation, dims)


@rule('sort', 'kthvalue', 'argsort')
def sort(coupling: Coupling, operation: Operation) -> None:
    """Freeze the axis that is sorted: the new position of a channel depends on the others."""
    drop_frozen(coupling, operation, operation.dims(), _SORTED)


@rule('_weight_norm_interface', '_weight_norm')
def weight_norm(coupling: Coupling, operation: Operation) -> None:
    """Couple lengths with directions. The other axes are mixed, because a length sums over them."""
    v, g = operation.args[:2]
    axes = broadcast(coupling, map(coupling.axes_of, (v, g)), v.dim())
    coupling.note_use(v, 'weight_norm.v')
    coupling.note_use(g, 'weight_norm.g')
    _mix_all_but(coupling, axes, operation.argument('dim'))
    coupling.assign(operation.output, axes)
    for norms in operation.outputs[1:]:
        coupling.assign(norms, coupling.axes_of(g))


@rule('renorm')
def renorm(coupling: Coupling, operation: Operation) -> None:
    """Hand all axes on. All but one are mixed, because each of its slices is scaled by its norm."""
    axes = coupling.axes_of(operation.tensors[0])
    _mix_all_but(coupling, axes, operation.argument('dim'))
    coupling.assign(operation.output, axes)


def _mix_all_but(coupling: Coupling, axes: Sequence[Axis], dim: int) -> None:
    for position, axis in enumerate(axes):
        if position != dim % len(axes):
            coupling.note_mixing(axis)
