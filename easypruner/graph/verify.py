"""Verification: a pruned network computes what the full one does without the removed channels."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from easypruner.base.modules import copy_of, evaluating
from easypruner.base.nested import map_tensors, tensors_in
from easypruner.errors import TraceError
from easypruner.graph.cutting.layer_handler import LayerHandler
from easypruner.graph.graph import ChannelGraph, prune, trace
from easypruner.graph.masks import Masks
from easypruner.graph.recording.parametrized import Normed, weight_norms
from easypruner.graph.recording.tape import ExampleInputs, call_arguments
from easypruner.graph.recording.wrappers import check_values, traceable

_TOLERANCE = 1e-5
_ROUNDING = 1e-12
_LOWER = (torch.float32, torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Verification:
    """The outcome of a verification.

    Attributes:
        error: the largest difference of any output, relative to that output's largest magnitude.
        removed_units: how many units were removed in the comparison.
        unchecked: groups left whole because an operation mixes their channels (a layer norm, a
            mean over channels): there, zeroing a channel is not removing it.
        constant: whether the outputs are the same without any unit of the groups that lose some,
            as behind a layer of zeros: that they stay the same then proves nothing.
    """

    error: float
    removed_units: int
    unchecked: tuple[str, ...]
    constant: bool = False

    @property
    def failed(self) -> bool:
        """Whether the error is not below 1e-5."""
        return not self.error < _TOLERANCE

    @property
    def passed(self) -> bool:
        """Whether the error is below 1e-5, of outputs that are not constant."""
        return not self.failed and not self.constant


@torch.inference_mode(False)
def verify(
    model: nn.Module,
    masks: Mapping[str, Tensor],
    example_inputs: ExampleInputs,
    handlers: Sequence[LayerHandler] = (),
    graph: ChannelGraph | None = None,
) -> Verification:
    """Compare the pruned network's outputs with the full one's, its readers zeroed.

    In a copy of the full network the weights that read removed channels are set to zero; whatever
    these channels hold, the outputs must then equal those of a pruned copy. Both run in evaluation
    mode and double precision, so that rounding does not blur the comparison.

    Args:
        model: the full network, wrapped or not; it is left as it was.
        masks: group -> bool tensor, True = keep.
        example_inputs: real tensors; random values find more than zeros do.
        handlers: as given to :func:`easypruner.trace`.
        graph: of the model, where it was traced with options of its own; it is left as it is.

    Raises:
        MaskError: masks that do not fit.
        TraceError: as for :func:`easypruner.trace`; or the network has no values, or does not run
            in double precision.
    """
    checked = Masks(masks)
    model = traceable(model)
    check_values(model)
    full = copy_of(model).double()
    inputs = map_tensors(example_inputs, lambda t: t.double() if t.is_floating_point() else t)
    graph = trace(full, inputs, handlers) if graph is None else graph.on(full)
    checked.check(graph)
    losing = [name for name, mask in checked.items() if not bool(mask.all())]
    unchecked = tuple(name for name in losing if graph.groups[name].mixed)
    checked = Masks({name: checked[name] for name in losing if name not in unchecked})
    comparison = _Comparison(full, graph, inputs)
    whole, expected = comparison.zeroed({}), comparison.zeroed(checked)
    nothing = {name: torch.zeros_like(mask) for name, mask in checked.items()}
    return Verification(
        error=relative_error(expected, comparison.pruned(checked)),
        removed_units=checked.removed_units,
        unchecked=unchecked,
        constant=bool(nothing)
        and relative_error(whole, expected) < _ROUNDING
        and relative_error(whole, comparison.zeroed(nothing)) < _ROUNDING,
    )


@dataclass(frozen=True)
class _Comparison:
    """Runs copies of a network in double precision; each only once, for a pass may change it."""

    full: nn.Module
    graph: ChannelGraph
    inputs: ExampleInputs

    def zeroed(self, masks: Mapping[str, Tensor]) -> list[Tensor]:
        """Return the outputs of the full network, its readers zeroed."""
        model = copy_of(self.full)
        zero_readers(model, masks, self.graph)
        return self._outputs(model)

    def pruned(self, masks: Mapping[str, Tensor]) -> list[Tensor]:
        """Return the outputs of the pruned network."""
        model = copy_of(self.full)
        prune(model, masks, graph=self.graph.on(model))
        return self._outputs(model)

    def _outputs(self, model: nn.Module) -> list[Tensor]:
        try:
            with _in_double():
                return outputs(model, self.inputs)
        except Exception as error:
            raise TraceError(
                f'the forward pass of {type(model).__name__} fails on the example inputs in double '
                f'precision, in which cuts are verified: {type(error).__name__}: {error}; give '
                'inputs of the types that the network takes, or leave the verification out'
            ) from error


class _Double(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Makes double what operations would make in a lower precision."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if kwargs.get('dtype') in _LOWER:
            kwargs = {**kwargs, 'dtype': torch.float64}
        return func(*args, **kwargs)


@contextlib.contextmanager
def _in_double() -> Iterator[None]:
    """Compute in double precision also where a forward pass asks for another, as ``x.float()``."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with _Double():  # type: ignore[no-untyped-call]
            yield
    finally:
        torch.set_default_dtype(before)


@torch.no_grad()
def zero_readers(model: nn.Module, masks: Mapping[str, Tensor], graph: ChannelGraph) -> None:
    """Zero, in place, the weights of ``model`` that read the channels ``masks`` remove."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    norms = weight_norms(dict(model.named_modules()))
    ratios = {normed: _ratio(normed, tensors) for normed in norms}
    # A direction that is zero has no length; where each has its own, that is to be zero.
    own = {(normed.direction, normed.dim): ratio for normed, ratio in ratios.items()}
    for name, mask in masks.items():
        for member in graph.groups[name].members:
            if member.role == 'in':
                tensor = own.get((member.param, member.dim), tensors[member.param])
                removed = member.index[~mask].flatten().to(tensor.device)
                tensor.index_fill_(member.dim, removed, 0.0)
    # Weight norm would stretch what is left of a direction to its former length.
    for normed, ratio in ratios.items():
        tensors[normed.length].copy_(normed.rescaled(ratio, tensors[normed.direction]))


def _ratio(normed: Normed, tensors: Mapping[str, Tensor]) -> Tensor:
    return normed.ratio(tensors[normed.length], tensors[normed.direction])


@torch.no_grad()
def outputs(model: nn.Module, example_inputs: ExampleInputs) -> list[Tensor]:
    """Return every tensor of the model's output, in evaluation mode.

    What a forward pass draws at random, such as a masked autoencoder's patches, is the same for
    every call.
    """
    args, kwargs = call_arguments(example_inputs)
    with evaluating(model), torch.random.fork_rng():
        torch.manual_seed(0)
        return [tensor for _, tensor in tensors_in(model(*args, **kwargs))]


def relative_error(expected: Sequence[Tensor], met: Sequence[Tensor]) -> float:
    """Return the largest difference, relative to the largest magnitude of each output.

    Infinite where the outputs differ in number, shape or in what is not a number.
    """
    if [t.shape for t in expected] != [t.shape for t in met]:
        return float('inf')
    worst = 0.0
    for a, b in zip(expected, met, strict=True):
        if not a.numel():
            continue
        a, b = a.double(), b.double()
        difference = float((a - b).abs().max())
        magnitude = float(a.abs().max())
        if difference != difference:
            return float('inf')
        worst = max(worst, difference / magnitude if magnitude else difference)
    return worst
