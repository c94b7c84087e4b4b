"""Mask source: the diagonal of the Hessian (optimal brain damage; LeCun et al., 1990)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from easypruner import Budget, Component, Context, MaskSource, hookimpl
from easypruner.arguments import check_count
from easypruner.graph import ChannelGraph
from easypruner.toolkit.gradients import Named, mean_over_batches, slopes
from easypruner.toolkit.units import check_over, score_units, unit_sums, weights_of, wide


class Hessian(MaskSource):
    """Scores a unit by how much the loss would grow without it, in second order.

    Optimal brain damage: ``s_u = 1/2 * sum of w^2 * H_ww`` over the weights of the unit, H the
    Hessian of the training loss. Its diagonal is estimated as ``E[v * (H v)]`` over random signs v
    (Hutchinson, 1990; Bekas et al., 2007), each ``H v`` by differentiating twice. The network runs
    in evaluation mode, and is left as it was.

    Where the loss is curved downwards scores are below zero, which the normalizations ``'none'``
    and ``'gaussian'`` understand.

    Args:
        budget: how much may stay.
        over: the weights that count: ``'producers'``, those that make a unit's channels, or
            ``'group'``, all parameters of the coupled layers.
        batches: of training data.
        samples: draws of v for each batch.
        seed: of the draws; by default the run's.
        reduction: over the layers of a group, whose contributions add up.
        normalization: across groups; scores are in the unit of the loss.
    """

    def __init__(
        self,
        budget: Budget | None = None,
        over: str = 'producers',
        batches: int = 10,
        samples: int = 4,
        seed: int | None = None,
        reduction: str = 'sum',
        normalization: str = 'none',
    ) -> None:
        super().__init__(budget, reduction, normalization)
        self.over = check_over(over, 'Hessian')
        self.batches = check_count(batches, 'batches', 'Hessian')
        self.samples = check_count(samples, 'samples', 'Hessian')
        self.seed = seed

    def score(self, graph: ChannelGraph, context: Context) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(context.seed if self.seed is None else self.seed)
        names = {
            member.param: None
            for group in graph.groups.values()
            for member in weights_of(graph, group, self.over)
        }

        def measure(loss: Tensor, leaves: Named) -> dict[str, Tensor]:
            diagonal = _diagonal(loss, leaves, self.samples, generator)
            growth = {
                name: wide(curvature) * wide(leaves[name].detach()).square() / 2
                for name, curvature in diagonal.items()
            }
            return score_units(graph, self.over, lambda m: unit_sums(growth[m.param], m))

        # The fused kernels of attention cannot be differentiated twice.
        with sdpa_kernel(SDPBackend.MATH):
            return mean_over_batches(graph, context, names, measure, self.batches, 'Hessian')


def _diagonal(
    loss: Tensor, leaves: Named, samples: int, generator: torch.Generator
) -> dict[str, Tensor]:
    """Return name -> an estimate of the diagonal of the Hessian there."""
    sums = {name: torch.zeros_like(leaf) for name, leaf in leaves.items()}
    gradients = slopes(loss, leaves, create_graph=True)
    curved = [name for name, gradient in gradients.items() if gradient.requires_grad]
    for _ in range(samples if curved else 0):
        signs = {name: _signs(leaves[name], generator) for name in curved}
        products = torch.autograd.grad(
            [gradients[name] for name in curved],
            list(leaves.values()),
            list(signs.values()),
            retain_graph=True,
            materialize_grads=True,
        )
        for name, product in zip(leaves, products, strict=True):
            if name in signs:
                sums[name] += signs[name] * product
    return {name: total / samples for name, total in sums.items()}


def _signs(like: Tensor, generator: torch.Generator) -> Tensor:
    """Return random signs, drawn on the CPU so that they are the same on every device."""
    return (torch.randint(0, 2, like.shape, generator=generator) * 2 - 1).to(like)


@hookimpl
def easypruner_components() -> Iterable[type[Component]]:
    return [Hessian]
