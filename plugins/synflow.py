"""Mask source: synaptic flow, without data (Tanaka et al., 2020, arXiv 2006.05467)."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import torch
from torch import Tensor

from easypruner import Budget, Component, Context, MaskSource, hookimpl
from easypruner.base.checks import check_name
from easypruner.base.nested import map_tensors, tensors_in
from easypruner.errors import EasyPrunerError
from easypruner.graph import ChannelGraph
from easypruner.graph.recording.tape import call_arguments
from easypruner.strategies.measures.gradients import check_finite, slopes, stand_ins
from easypruner.strategies.measures.units import OVER, measured, stacked, unit_sums

_OVERFLOW = (
    'it is too deep, or its weights are too large, for what flows through them to be held in '
    'double precision; use another source'
)


class Synflow(MaskSource):
    """Scores a unit by what flows through it when all weights are positive.

    ``s_u = sum of |dR/dw * w|`` over the weights of the unit, where R is the sum of the outputs of
    the network with the magnitudes of its weights on an input of ones. Nothing is overlooked that
    the network needs to conduct at all, so no layer is emptied; the paper removes a little at a
    time, with new scores after each step.

    It runs in double precision and in evaluation mode, as the authors' code does, and with the
    magnitudes of buffers as well. Batch norms divide by their running deviations, but do not
    subtract their running means, which would make flows negative; in a network that has not been
    trained, as in the paper, these are zero. Inputs that are no floating-point numbers stay what
    they are. The model is left as it was.

    Args:
        budget: how much may stay.
        over: the weights that count: ``'producers'``, those that make a unit's channels, or
            ``'group'``, all parameters of the coupled layers.
        reduction: over the layers of a group.
        normalization: across groups; layer by layer the same flow passes, so none is needed.
    """

    def __init__(
        self,
        budget: Budget | None = None,
        over: str = 'producers',
        reduction: str = 'mean',
        normalization: str = 'none',
    ) -> None:
        super().__init__(budget, reduction, normalization)
        self.over = check_name(over, 'over', 'Synflow', OVER)

    def score(self, graph: ChannelGraph, context: Context) -> dict[str, Tensor]:
        members = measured(graph, self.over)
        names = dict.fromkeys(member.param for own in members.values() for member in own)
        flows = _flows(graph, names)
        if names and not any(bool(flow.any()) for flow in flows.values()):
            raise EasyPrunerError(
                f'Synflow ranks channels by what flows through them, but nothing flows through '
                f'this {type(graph.model).__name__}: a layer on every way is all zeros, or its '
                'outputs do not depend on its weights, as behind a softmax'
            )
        return stacked(members, self.over, lambda m: unit_sums(flows[m.param], m))


def _flows(graph: ChannelGraph, names: Collection[str]) -> dict[str, Tensor]:
    """Return name -> |dR/dw * w| of each of its elements."""

    def positive(name: str, tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point():
            return tensor.detach().clone()
        magnitudes = tensor.detach().double().abs()
        is_mean = graph.operands.get(name) == 'batch_norm.running_mean'
        return torch.zeros_like(magnitudes) if is_mean else magnitudes

    with stand_ins(graph.model, names, positive) as leaves:
        device = next(graph.model.parameters()).device
        inputs = map_tensors(graph.example_inputs, lambda t: _ones(t, device))
        args, kwargs = call_arguments(inputs)
        outputs = [t for _, t in tensors_in(graph.model(*args, **kwargs)) if t.requires_grad]
        if not outputs:
            return {name: torch.zeros_like(leaf) for name, leaf in leaves.items()}
        total = torch.stack([output.sum() for output in outputs]).sum()
        check_finite(total, graph, 'Synflow adds up the outputs of the network', _OVERFLOW)
        return {n: (slope * leaves[n].detach()).abs() for n, slope in slopes(total, leaves).items()}


def _ones(tensor: Tensor, device: torch.device) -> Tensor:
    if not tensor.is_floating_point():
        return tensor.to(device)
    return torch.ones(tensor.shape, dtype=torch.float64, device=device)


@hookimpl
def easypruner_components() -> Iterable[type[Component]]:
    return [Synflow]
