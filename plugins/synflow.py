"""Mask source: synaptic flow, without data (Tanaka et al., 2020, arXiv 2006.05467)."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

from easypruner import Context, hookimpl
from easypruner.base.nested import map_tensors, tensors_in
from easypruner.errors import EasyPrunerError
from easypruner.graph import ChannelGraph
from easypruner.graph.recording.tape import call_arguments
from easypruner.strategies.measures.gradients import check_finite, gradients_of, substituted_tensors
from easypruner.strategies.measures.units import score_members, scored_members, unit_sums
from easypruner.strategies.sources.bases import WeightSource

_OVERFLOW = (
    'the network is too deep, or its weights are too large, for double precision; '
    'use another source'
)


class Synflow(WeightSource):
    """Scores a unit by the flow through it when all weights are positive.

    ``s_u = sum of |dR/dw * w|`` over the weights of the unit. R is the sum of the network's outputs
    for an input of ones, when all weights are replaced by their magnitudes. In a chain of
    layers, the scores of each layer add up to R. Units of narrow layers therefore score high, and
    no layer is emptied.

    The source computes in double precision and evaluation mode, as the authors' code does, with the
    magnitudes of buffers as well. Batch norms divide by their running deviations, but do not
    subtract their running means, which could make flows negative. In an untrained network, as in
    the paper, these means are zero. Inputs that are not floating-point numbers are not replaced.
    The model stays unchanged.

    Use when:
        No data is available, or the network is pruned before it is trained, as in the paper.

    Fails when:
        All channels are removed in one cut: the paper shows that scores must be computed again
        after small steps. A trained network has better criteria, such as ``Taylor``. Nothing flows
        if the outputs do not depend on the weights, as behind a softmax.

    Values:
        The paper uses 100 steps with an exponential schedule:
        ``dict(type='Iterative', steps=100, schedule=dict(exponential=0.5), each=[...])``. Far
        fewer steps are needed for moderate ratios.

    Args:
        over: which weights are used: ``'producers'``, those that produce a unit's channels, or
            ``'group'``, all parameters of the coupled layers.
    """

    def score(self, graph: ChannelGraph, context: Context) -> dict[str, Tensor]:
        members = scored_members(graph, self.over)
        names = dict.fromkeys(member.param for own in members.values() for member in own)
        flows = _flows(graph, names)
        if names and not any(bool(flow.any()) for flow in flows.values()):
            raise EasyPrunerError(
                f'Synflow ranks channels by the flow through them, but nothing flows through this '
                f'{type(graph.model).__name__}: every path has a layer of zeros, or the outputs do '
                'not depend on the weights, as behind a softmax; use another source'
            )
        return score_members(members, self.over, lambda m: unit_sums(flows[m.param], m))


def _flows(graph: ChannelGraph, names: Collection[str]) -> dict[str, Tensor]:
    """Return name -> |dR/dw * w| of each of its elements."""

    def magnitudes(name: str, tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point():
            return tensor.detach().clone()
        values = tensor.detach().double().abs()
        is_mean = graph.operands.get(name) == 'batch_norm.running_mean'
        return torch.zeros_like(values) if is_mean else values

    with substituted_tensors(graph.model, names, magnitudes) as leaves:
        device = next(graph.model.parameters()).device
        inputs = map_tensors(graph.example_inputs, lambda t: _ones(t, device))
        args, kwargs = call_arguments(inputs)
        outputs = [t for _, t in tensors_in(graph.model(*args, **kwargs)) if t.requires_grad]
        if not outputs:
            return {name: torch.zeros_like(leaf) for name, leaf in leaves.items()}
        total = torch.stack([output.sum() for output in outputs]).sum()
        check_finite(total, graph, 'Synflow adds up the outputs of the network', _OVERFLOW)
        return {n: (g * leaves[n].detach()).abs() for n, g in gradients_of(total, leaves).items()}


def _ones(tensor: Tensor, device: torch.device) -> Tensor:
    if not tensor.is_floating_point():
        return tensor.to(device)
    return torch.ones(tensor.shape, dtype=torch.float64, device=device)


easypruner_components = hookimpl(lambda: [Synflow])
