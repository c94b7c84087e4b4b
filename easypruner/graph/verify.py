"""Verification: a pruned network must compute what the full one does without those channels."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from easypruner.base.modules import copy_of, evaluating
from easypruner.base.nested import map_tensors
from easypruner.base.settings import changed_setting
from easypruner.errors import ConfigError, TraceError
from easypruner.graph.coupling.choice import Attention, Grouped, Ignored
from easypruner.graph.cutting.handlers import LayerHandler
from easypruner.graph.graph import ChannelGraph, cut_graph
from easypruner.graph.masks import Masks
from easypruner.graph.recording.composites import is_composite, run_parts, without_compilation
from easypruner.graph.recording.forward_state import unchanged
from easypruner.graph.recording.grouped_products import is_grouped_product, multiply_groups
from easypruner.graph.recording.inventory import Inventory, named_tensors
from easypruner.graph.recording.outputs import ALL_OUTPUTS, CountedOutputs, Outputs
from easypruner.graph.recording.parametrized import weight_norms
from easypruner.graph.recording.tape import Call, ExampleInputs, call_model, check_calls
from easypruner.graph.recording.wrappers import check_values, find_traceable
from easypruner.graph.tracing import trace

aten = torch.ops.aten
_TOLERANCE = 1e-5
_ROUNDING = 1e-12
_SINGLE_SCALES = (
    aten.fake_quantize_per_channel_affine_cachemask.default,
    aten._fake_quantize_learnable_per_channel_affine.default,
)
"""Operations whose second argument has to be of single precision, whatever the others are."""
_LOWER = (torch.float32, torch.float16, torch.bfloat16)
_DOUBLE = {
    **dict.fromkeys(_LOWER, torch.float64),
    **dict.fromkeys((torch.complex32, torch.complex64), torch.complex128),
}
"""A type of lower precision -> the one in which cuts are verified."""
_FULL = (
    'fails on the example inputs in double precision, in which cuts are verified: {}; give inputs '
    'of the types that the network takes, or leave the verification out'
)
_PRUNED = (
    'fails, and that of the full one does not: {}; two widths that belong together were cut '
    'differently: '
)
_ADVICE = (
    'check what the rules of your own operations couple (easypruner.graph.rule), or report this '
    'with the network'
)
_ADVICE_ON_CALLS = (
    'trace the network with the same calls (easypruner.trace(..., calls=[...])), so that numbers '
    'of its code fit all of them'
)


@dataclass(frozen=True)
class Verification:
    """The result of a verification.

    Attributes:
        error: the largest difference of any output of any call, relative to the largest magnitude
            of that output.
        removed_units: the number of units that were removed for the comparison.
        unchecked: the groups that were left whole, because an operation mixes their channels (a
            layer norm, a mean over channels). To zero such a channel is not to remove it.
        constant: whether the outputs are the same without any unit of the groups that lose some,
            as behind a layer of zeros. Then the comparison proves nothing.
        errors: the error on the example inputs, then that of each of the further calls.
    """

    error: float
    removed_units: int
    unchecked: tuple[str, ...]
    constant: bool = False
    errors: tuple[float, ...] = ()

    @property
    def failed(self) -> bool:
        """Whether the error is not below 1e-5."""
        return not self.error < _TOLERANCE

    @property
    def passed(self) -> bool:
        """Whether the error is below 1e-5 and the outputs are not constant."""
        return not self.failed and not self.constant


@torch.inference_mode(False)
def verify(
    model: nn.Module,
    masks: Mapping[str, Tensor],
    example_inputs: ExampleInputs,
    handlers: Sequence[LayerHandler] = (),
    graph: ChannelGraph | None = None,
    *,
    outputs: Outputs | None = None,
    calls: Sequence[Call] = (),
    attention: Attention | None = None,
    grouped: Grouped | None = None,
    ignore: Ignored | Iterable[Ignored] | None = None,
) -> Verification:
    """Compare the outputs of the pruned network with those of the full one, its readers zeroed.

    In a copy of the full network, the weights that read removed channels are set to zero. Its
    outputs must equal those of a pruned copy, whatever the removed channels hold. Both run in
    evaluation mode and double precision, so that rounding does not blur the comparison.

    Args:
        model: the full network, wrapped or not. It is left as it was.
        masks: group -> bool tensor, True = keep.
        example_inputs: real tensors, of any precision. Random values find more errors than zeros
            do. Without ``graph``, they are traced in the precision of the network's parameters.
        handlers: as for :func:`easypruner.trace`.
        graph: the graph of the model, if there is one. It is left as it was.
        outputs: the outputs that count, as for :func:`easypruner.trace`; only used without
            ``graph``, which knows them.
        calls: further calls that are compared: other example inputs, or functions that take the
            model, call it and return its outputs, as for :func:`easypruner.trace`. In training mode
            dropout keeps everything, because what it drops depends on the widths.
        attention: as for :func:`easypruner.trace`; without ``graph``. Masks of a trace with
            ``attention='heads'``, for example, need the same option here.
        grouped: likewise.
        ignore: likewise.

    Raises:
        ConfigError: ``calls`` is not a list, an option cannot be used, or ``outputs`` does not fit
            the outputs.
        MaskError: masks do not fit.
        TraceError: the network has no values, it does not run in double precision, the pruned
            network does not run, or as for :func:`easypruner.trace`.
    """
    checked = Masks(masks)
    check_calls(calls)
    model = find_traceable(model)
    check_values(model, 'verify')
    full = _doubled_network(copy_of(model))
    given = dict(attention=attention, grouped=grouped, ignore=ignore)
    options: Any = {name: value for name, value in given.items() if value is not None}
    if graph is not None and options:
        raise ConfigError(
            f'verify got graph= and {", ".join(f"{name}=" for name in options)}; the options of a '
            'graph are those of its trace: give them to easypruner.trace, or leave the graph out'
        )
    if graph is None:
        fitting = _in_precision_of(model, example_inputs)
        graph = trace(model, fitting, handlers, outputs=outputs, calls=calls, **options)
    graph = graph.on(full)
    checked.check(graph)
    losing = [name for name, mask in checked.items() if not bool(mask.all())]
    unchecked = tuple(name for name in losing if graph.groups[name].mixed)
    checked = Masks({name: checked[name] for name in losing if name not in unchecked})
    pruned = copy_of(full)
    cut_graph(pruned, checked, graph=graph.on(pruned), is_copy=True)
    compared = [
        _compare_call(call, full, pruned, checked, graph)
        for call in (
            _Call(example_inputs, 'the forward pass', _ADVICE, graph.counted),
            *(
                _Call(call, f'calls[{number}]', _ADVICE_ON_CALLS, graph.counted.elsewhere())
                for number, call in enumerate(calls)
            ),
        )
    ]
    errors = tuple(error for error, _ in compared)
    return Verification(
        error=max(errors),
        removed_units=checked.removed_units,
        unchecked=unchecked,
        constant=all(constant for _, constant in compared),
        errors=errors,
    )


@dataclass(frozen=True)
class _Call:
    """A call of the network for the comparison.

    Attributes:
        call: example inputs, or a function that takes the network.
        name: what messages call it.
        advice: what to do if only the pruned network fails.
        counted: chooses the outputs to compare.
    """

    call: Call
    name: str
    advice: str
    counted: CountedOutputs

    def run_full(self, model: nn.Module) -> list[Tensor]:
        """Return the outputs of the full network, or of a copy of it with zeroed readers."""
        return self._run(model, f'{self.name} of {{}} {_FULL}')

    def run_pruned(self, model: nn.Module) -> list[Tensor]:
        """Return the outputs of the pruned network."""
        return self._run(model, f'{self.name} of the pruned {{}} {_PRUNED}{self.advice}')

    def _run(self, model: nn.Module, failure: str) -> list[Tensor]:
        """Return the outputs of a network in double precision. The pass may change its buffers."""
        double = changed_setting(torch.get_default_dtype, torch.set_default_dtype, torch.float64)
        is_function = callable(self.call)
        call = map_tensors(self.call, _doubled)
        try:
            # A forward pass may ask for another precision, as ``x.float()``.
            with unchanged(model), double, without_compilation(), _Double(is_function):
                return compute_outputs(model, call, self.counted)
        except ConfigError:  # of the outputs
            raise
        except Exception as error:
            reason = f'{type(error).__name__}: {error}'
            raise TraceError(failure.format(type(model).__name__, reason)) from error


def _compare_call(
    call: _Call, full: nn.Module, pruned: nn.Module, masks: Masks, graph: ChannelGraph
) -> tuple[float, bool]:
    """Return the error of a call, and whether its outputs are the same without any unit."""
    nothing = {name: torch.zeros_like(mask) for name, mask in masks.items()}
    whole, expected = call.run_full(copy_of(full)), call.run_full(_zeroed(full, graph, masks))
    constant = (
        bool(nothing)
        and relative_error(whole, expected) < _ROUNDING
        and relative_error(whole, call.run_full(_zeroed(full, graph, nothing))) < _ROUNDING
    )
    return relative_error(expected, call.run_pruned(copy_of(pruned))), constant


def _zeroed(full: nn.Module, graph: ChannelGraph, masks: Mapping[str, Tensor]) -> nn.Module:
    """Return a copy of the full network whose readers of removed channels are zeroed."""
    model = copy_of(full)
    zero_readers(model, masks, graph)
    return model


class _Double(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Makes operations return double where they would return a lower precision.

    Args:
        of_function: whether a function calls the network. Then tensors of a lower precision, which
            it may have as they were, are converted for each operation.
    """

    supports_higher_order_operators = True

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # The guard against torch.compile, which is off here, would import it: a second of CPU time.
        return False

    def __init__(self, of_function: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._converts = of_function

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if is_composite(func):
            return run_parts(self, func, args, kwargs)
        if kwargs.get('dtype') in _DOUBLE:
            kwargs = {**kwargs, 'dtype': _DOUBLE[kwargs['dtype']]}
        if func is aten.bernoulli_.float:  # drops values, at random positions
            return args[0].fill_(1.0)
        if func is aten.native_dropout.default:
            args, kwargs = (args[0], 0.0, True), {}
        if self._converts and not func._schema.is_mutable:
            args, kwargs = map_tensors((args, kwargs), _doubled)
        if is_grouped_product(func):
            return multiply_groups(*args, **kwargs)
        if func in _SINGLE_SCALES:
            args = (args[0], args[1].float(), *args[2:])
        try:
            return func(*args, **kwargs)
        except RuntimeError:
            if func._schema.is_mutable:
                raise
        # A tensor in a plain attribute has kept its precision.
        args, kwargs = map_tensors((args, kwargs), _doubled)
        return func(*args, **kwargs)


def _doubled(tensor: Tensor) -> Tensor:
    return tensor.to(_DOUBLE[tensor.dtype]) if tensor.dtype in _DOUBLE else tensor


def _in_precision_of(model: nn.Module, inputs: ExampleInputs) -> ExampleInputs:
    """Return inputs in the precision of a network's parameters, if they have only one."""
    known = {p.dtype for p in model.parameters() if p.is_floating_point()}
    if len(known) != 1:
        return inputs
    (dtype,) = known
    return map_tensors(inputs, lambda t: t.to(dtype) if t.is_floating_point() else t)


def _doubled_network(network: nn.Module) -> nn.Module:
    network = network.double()
    # Torch leaves complex parameters and buffers as they are.
    if any(tensor.is_complex() for tensor in named_tensors(network).values()):
        network._apply(_doubled)  # type: ignore[no-untyped-call]
    return network


@torch.no_grad()
def zero_readers(model: nn.Module, masks: Mapping[str, Tensor], graph: ChannelGraph) -> None:
    """Set the weights of a model to zero, in place, that read channels which masks remove."""
    tensors = {**Inventory(model).tensors, **named_tensors(model)}
    ratios = {
        normed: normed.ratio(tensors[normed.length], tensors[normed.direction])
        for normed in weight_norms(dict(model.named_modules()))
    }
    # A direction of zeros has no length. So where each has its own, the ratio becomes zero.
    own = {(normed.direction, normed.dim): ratio for normed, ratio in ratios.items()}
    for name, mask in masks.items():
        for member in graph.groups[name].members:
            if member.role == 'in':
                tensor = own.get((member.param, member.dim), tensors[member.param])
                removed = member.index[~mask].flatten().to(tensor.device)
                tensor.index_fill_(member.dim, removed, 0.0)
    # Weight norm would scale what is left of a direction to its old length.
    for normed, ratio in ratios.items():
        tensors[normed.length].copy_(normed.rescaled(ratio, tensors[normed.direction]))


@torch.no_grad()
def compute_outputs(
    model: nn.Module, call: Call, counted: CountedOutputs = ALL_OUTPUTS
) -> list[Tensor]:
    """Return the tensors of a model's output that count, in evaluation mode.

    Random numbers of the forward pass, such as the patches of a masked autoencoder, are the same
    in every call.

    Args:
        model: the model.
        call: example inputs, or a function that takes the model and returns its outputs.
        counted: chooses the outputs.
    """
    with evaluating(model), torch.random.fork_rng():
        torch.manual_seed(0)
        return [tensor for _, tensor in counted.select(call_model(model, call))]


def relative_error(expected: Sequence[Tensor], got: Sequence[Tensor]) -> float:
    """Return the largest difference of any output, relative to its largest magnitude.

    It is infinite if the outputs differ in number or shape, or if a difference is not a number.
    """
    if [t.shape for t in expected] != [t.shape for t in got]:
        return math.inf
    pairs = (map(_comparable, each) for each in zip(expected, got, strict=True) if each[0].numel())
    errors = [float((a - b).abs().max()) / (float(a.abs().max()) or 1.0) for a, b in pairs]
    return math.inf if any(map(math.isnan, errors)) else max(errors, default=0.0)


def _comparable(tensor: Tensor) -> Tensor:
    return tensor.detach().to(torch.complex128 if tensor.is_complex() else torch.float64)
