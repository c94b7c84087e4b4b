"""Rules for operations that work element by element, with broadcasting, and for reductions."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from easypruner.graph.coupling.coupling import INNER, Axis, Coupling
from easypruner.graph.coupling.rules import rule, tensors_of
from easypruner.graph.coupling.rules.arguments import argument, first_tensor, wrap, wrap_all
from easypruner.graph.recording.tape import Operation


def broadcast(coupling: Coupling, tensors: Sequence[Tensor], count: int) -> list[Axis]:
    """Couple the axes that broadcasting lines up; return the ``count`` axes of the result."""
    result: list[Axis | None] = [None] * count
    for tensor in tensors:
        axes = coupling.axes(tensor)
        shift = count - len(axes)
        for position, axis in enumerate(axes, start=shift):
            met = result[position]
            if met is None or met.size == 1:
                result[position] = axis
            elif axis.size != 1:
                result[position] = coupling.couple(met, axis)
    return [coupling.constant(1) if axis is None else axis for axis in result]


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
    tensors = tensors_of(operation)
    for output in operation.outputs:
        axes = broadcast(coupling, tensors, output.dim())
        if not coupling.assigned(output):
            coupling.assign(output, axes)
    for position, tensor in enumerate(tensors):
        if coupling.weight_of(tensor) is not None:
            coupling.use(tensor, f'{operation.name.removesuffix("_")}.{_name(operation, position)}')


def _name(operation: Operation, position: int) -> str:
    names = operation.func._schema.arguments
    return str(names[position].name) if position < len(names) else str(position)


@rule(
    'mean', 'sum', 'amax', 'amin', 'var', 'std', 'var_mean', 'std_mean', 'norm', 'logsumexp',
    'prod', 'any', 'all', 'linalg_vector_norm', 'nansum', 'count_nonzero', 'aminmax',
)  # fmt: skip
def reduction(coupling: Coupling, operation: Operation) -> None:
    x = first_tensor(operation)
    overload = operation.func._schema
    position = next((i for i, a in enumerate(overload.arguments) if a.name == 'dim'), None)
    dims = argument(operation, position, 'dim') if position is not None else None
    _reduce(coupling, operation, wrap_all(dims, x.dim()))


@rule('max', 'min', 'median', 'mode', 'argmax', 'argmin')
def choice(coupling: Coupling, operation: Operation) -> None:
    x = first_tensor(operation)
    if len(tensors_of(operation)) == 2:
        pointwise(coupling, operation)
        return
    names_dim = any(a.name == 'dim' for a in operation.func._schema.arguments)
    dims = wrap_all(argument(operation, 1, 'dim') if names_dim else None, x.dim())
    if operation.name.startswith('arg'):
        for dim in dims:
            coupling.fix(coupling.axes(x)[dim], 'the position of a channel is used as a value')
    _reduce(coupling, operation, dims)


def _reduce(coupling: Coupling, operation: Operation, dims: tuple[int, ...]) -> None:
    x = first_tensor(operation)
    axes = coupling.axes(x)
    for dim in dims:
        coupling.mix(axes[dim])
    for output in operation.outputs:
        if output.dim() == x.dim():
            one = coupling.constant(1)
            kept = [one if dim in dims else axis for dim, axis in enumerate(axes)]
        else:
            kept = [axis for dim, axis in enumerate(axes) if dim not in dims]
        coupling.assign(output, kept)


@rule('softmax', '_softmax', '_safe_softmax', 'log_softmax', '_log_softmax', 'cumsum', 'cumprod',
      'logcumsumexp', 'renorm')  # fmt: skip
def along(coupling: Coupling, operation: Operation) -> None:
    x = first_tensor(operation)
    axes = coupling.axes(x)
    position = next(i for i, a in enumerate(operation.func._schema.arguments) if a.name == 'dim')
    if x.dim():
        coupling.mix(axes[wrap(argument(operation, position, 'dim'), x.dim())])
    for output in operation.outputs:
        coupling.assign(output, axes)


@rule('sort', 'topk', 'kthvalue', 'argsort', 'msort')
def ordering(coupling: Coupling, operation: Operation) -> None:
    x = first_tensor(operation)
    position = {'topk': 2, 'kthvalue': 2}.get(operation.name, 1)
    given = argument(operation, position, 'dim', -1)
    dim = wrap(given if isinstance(given, int) else -1, x.dim()) if x.dim() else 0
    axes = list(coupling.axes(x))
    if axes:
        coupling.fix(axes[dim], 'channels are sorted')
    for output in operation.outputs:
        if output.dim() == x.dim():
            out = list(axes)
            if out:
                out[dim] = coupling.constant(output.shape[dim], INNER)
        else:
            out = [axis for i, axis in enumerate(axes) if i != dim]
        coupling.assign(output, out)


@rule('_weight_norm_interface', '_weight_norm')
def weight_norm(coupling: Coupling, operation: Operation) -> None:
    v, g = operation.args[:2]
    axes = broadcast(coupling, (v, g), v.dim())
    coupling.use(v, 'weight_norm.v')
    coupling.use(g, 'weight_norm.g')
    dim = wrap(argument(operation, 2, 'dim', 0), v.dim())
    for position, axis in enumerate(axes):
        if position != dim:
            coupling.mix(axis)
    coupling.assign(operation.outputs[0], axes)
    for norms in operation.outputs[1:]:
        coupling.assign(norms, coupling.axes(g))
