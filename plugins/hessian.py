"""Mask source: the diagonal of the Hessian (optimal brain damage; LeCun et al., 1990)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from easypruner import Budget, Context, hookimpl
from easypruner.base.checks import check_count
from easypruner.graph import ChannelGraph
from easypruner.strategies.measures.gradients import NamedTensors, gradients_of, mean_over_batches
from easypruner.strategies.measures.units import score_members, scored_members, unit_sums, widen
from easypruner.strategies.sources.bases import WeightSource


class Hessian(WeightSource):
    """Scores a unit by the increase of the loss without it, in second order.

    This is optimal brain damage: ``s_u = 1/2 * sum of w^2 * H_ww`` over the weights of the unit,
    where H is the Hessian of the training loss. ``w^2 * H_ww`` is estimated as the mean of
    ``z * (H z)``, where z is the weights with random signs (Hutchinson, 1990; Bekas et al., 2007).
    Each ``H z`` needs two differentiations. The network runs in evaluation mode and stays
    unchanged.

    The estimate is unbiased, but noisy: the other entries of the Hessian add terms that cancel only
    in the mean, and in deep layers they are larger than the score itself. To reduce the noise, H
    and z are those of one weight tensor at a time.

    Use when:
        A second-order estimate is needed without the assumptions of ``Fisher``, and time is
        available.

    Fails when:
        Few batches and samples are used: then noise dominates. A weight tensor needs a part of a
        backward pass for each draw, so the time grows with the number of layers. The loss curves
        downwards in some weights: then scores are negative, which only the normalizations
        ``'none'`` and ``'gaussian'`` accept.

    Values:
        The noise decreases with the square root of ``batches * samples``, and the time grows in
        proportion. Increase both until two seeds select mostly the same channels.

    Args:
        over: which weights are used: ``'producers'``, those that produce a unit's channels, or
            ``'group'``, all parameters of the coupled layers.
        batches: the number of batches of training data.
        samples: the number of draws of z for each weight tensor and batch.
        seed: the seed of the draws; None for the seed of the run.
    """

    def __init__(
        self,
        budget: Budget | Sequence[Budget] | None = None,
        over: str = 'producers',
        batches: int = 10,
        samples: int = 2,
        seed: int | None = None,
        reduction: str = 'sum',
        normalization: str = 'none',
    ) -> None:
        super().__init__(budget, over, reduction, normalization)
        self.batches = check_count(batches, 'batches', 'Hessian')
        self.samples = check_count(samples, 'samples', 'Hessian')
        self.seed = seed

    def score(self, graph: ChannelGraph, context: Context) -> dict[str, Tensor]:
        generator = context.generator(self.seed)
        members = scored_members(graph, self.over)
        names = dict.fromkeys(member.param for own in members.values() for member in own)

        def measure(loss: Tensor, leaves: NamedTensors) -> dict[str, Tensor]:
            growth = _growth(loss, leaves, self.samples, generator)
            return score_members(members, self.over, lambda m: unit_sums(growth[m.param], m))

        # The fused kernels of attention cannot be differentiated twice.
        with sdpa_kernel(SDPBackend.MATH):
            return mean_over_batches(graph, context, names, measure, self.batches, 'Hessian')


def _growth(
    loss: Tensor, leaves: NamedTensors, samples: int, generator: torch.Generator
) -> dict[str, Tensor]:
    """Return name -> an estimate of w^2 / 2 times the diagonal of the Hessian."""
    growth = {name: torch.zeros_like(widen(leaf.detach())) for name, leaf in leaves.items()}
    for name, gradient in gradients_of(loss, leaves, create_graph=True).items():
        # One tensor at a time, because the entries between two tensors would only add noise.
        for _ in range(samples if gradient.requires_grad else 0):
            leaf = leaves[name]
            drawn = leaf.detach() * _signs(leaf, generator)
            (product,) = torch.autograd.grad(
                gradient, leaf, drawn, retain_graph=True, materialize_grads=True
            )
            growth[name] += widen(drawn) * widen(product) / (2 * samples)
    return growth


def _signs(like: Tensor, generator: torch.Generator) -> Tensor:
    """Return random signs, drawn on the CPU so that they are the same on every device."""
    return (torch.randint(0, 2, like.shape, generator=generator) * 2 - 1).to(like)


easypruner_components = hookimpl(lambda: [Hessian])
