"""Mask source: the diagonal of the Hessian (optimal brain damage; LeCun et al., 1990)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from easypruner import Budget, Component, Context, MaskSource, hookimpl
from easypruner.base.checks import check_count, check_name
from easypruner.graph import ChannelGraph
from easypruner.strategies.measures.gradients import Named, mean_over_batches, slopes
from easypruner.strategies.measures.units import OVER, measured, stacked, unit_sums, wide


class Hessian(MaskSource):
    """Scores a unit by how much the loss would grow without it, in second order.

    Optimal brain damage: ``s_u = 1/2 * sum of w^2 * H_ww`` over the weights of the unit, H the
    Hessian of the training loss. ``w^2 * H_ww`` is estimated as the mean of ``z * (H z)``, z the
    weights under random signs (Hutchinson, 1990; Bekas et al., 2007), each ``H z`` by
    differentiating twice. The network runs in evaluation mode, and is left as it was.

    The estimate is unbiased, and noisy: to each product the rest of the Hessian adds terms that
    cancel out only in the mean, and in deep layers outweigh single draws. What weights of other
    layers would add is kept away, for H and z are those of one weight (a tensor) at a time. The
    noise falls with the root of ``batches * samples``, the time grows with it, and with the number
    of weights: each draw is part of a backward pass for each of them.

    Where the loss is curved downwards scores are below zero, which the normalizations ``'none'``
    and ``'gaussian'`` understand.

    Args:
        budget: how much may stay.
        over: the weights that count: ``'producers'``, those that make a unit's channels, or
            ``'group'``, all parameters of the coupled layers.
        batches: of training data.
        samples: draws of z for each weight and batch.
        seed: of the draws; by default the run's.
        reduction: over the layers of a group, whose contributions add up.
        normalization: across groups; scores are in the unit of the loss.
    """

    def __init__(
        self,
        budget: Budget | None = None,
        over: str = 'producers',
        batches: int = 10,
        samples: int = 2,
        seed: int | None = None,
        reduction: str = 'sum',
        normalization: str = 'none',
    ) -> None:
        super().__init__(budget, reduction, normalization)
        self.over = check_name(over, 'over', 'Hessian', OVER)
        self.batches = check_count(batches, 'batches', 'Hessian')
        self.samples = check_count(samples, 'samples', 'Hessian')
        self.seed = seed

    def score(self, graph: ChannelGraph, context: Context) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(context.seed if self.seed is None else self.seed)
        members = measured(graph, self.over)
        names = dict.fromkeys(member.param for own in members.values() for member in own)

        def measure(loss: Tensor, leaves: Named) -> dict[str, Tensor]:
            growth = _growth(loss, leaves, self.samples, generator)
            return stacked(members, self.over, lambda m: unit_sums(growth[m.param], m))

        # The fused kernels of attention cannot be differentiated twice.
        with sdpa_kernel(SDPBackend.MATH):
            return mean_over_batches(graph, context, names, measure, self.batches, 'Hessian')


def _growth(
    loss: Tensor, leaves: Named, samples: int, generator: torch.Generator
) -> dict[str, Tensor]:
    """Return name -> an estimate of w^2 / 2 times the diagonal of the Hessian there."""
    growth = {name: torch.zeros_like(wide(leaf.detach())) for name, leaf in leaves.items()}
    for name, gradient in slopes(loss, leaves, create_graph=True).items():
        # One weight at a time: what others do to it would be nothing but noise.
        for _ in range(samples if gradient.requires_grad else 0):
            leaf = leaves[name]
            drawn = leaf.detach() * _signs(leaf, generator)
            (product,) = torch.autograd.grad(
                gradient, leaf, drawn, retain_graph=True, materialize_grads=True
            )
            growth[name] += wide(drawn) * wide(product) / (2 * samples)
    return growth


def _signs(like: Tensor, generator: torch.Generator) -> Tensor:
    """Return random signs, drawn on the CPU so that they are the same on every device."""
    return (torch.randint(0, 2, like.shape, generator=generator) * 2 - 1).to(like)


@hookimpl
def easypruner_components() -> Iterable[type[Component]]:
    return [Hessian]
