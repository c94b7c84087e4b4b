"""Regularizer: an L1 penalty on activations (Georgiadis, 2019, arXiv 1812.04056)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from functools import partial

import torch
from torch import Tensor

from easypruner import Masks, Progress, Regularizer, hookimpl
from easypruner.base.checks import check_flag
from easypruner.graph import ChannelGraph
from easypruner.strategies.measures.activations import Probe, probing, reader_probes


class ActivationSparsity(Regularizer):
    r"""strength * sum over channels of the mean of |activation|.

    Equation 1 of the paper penalizes the L1 norm of activation maps. Here, each channel counts by
    its mean over the samples and positions of a batch, so that the penalty does not depend on their
    number. Channels are measured where layers read them, behind norm and activation. A channel that
    several layers read counts once for each of them. The penalty is added to the loss of each
    forward pass.

    Use when:
        Channels should become inactive, whatever produces them: scale, bias and weights together.
        ``APoZ`` then finds the inactive ones. It needs no batch norm.

    Fails when:
        Activations are not read by a convolution or linear layer that is called as a module. The
        push has no reach, because it does not act on parameters directly, so the plan cannot
        predict whether it suffices. A channel behind a ReLU that is inactive on all training data
        has no gradient any more and stays inactive. It holds under any optimizer, because it is a
        part of the loss: the optimizer divides the gradient of the sum.

    Values:
        Start with a ``strength`` at which the penalty is about a tenth of the loss, and
        ``strength_schedule='linear'``.

    Args:
        strength: the factor λ of the penalty, a number. ``dict(reach=R)`` is not possible.
        only_removed: whether to push only the channels that masks remove, instead of all.
    """

    def __init__(
        self,
        strength: float,
        only_removed: bool = False,
        strength_schedule: str | Mapping[str, float] = 'constant',
        group_strengths: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(strength, strength_schedule, group_strengths)
        self.only_removed = check_flag(only_removed, 'only_removed', 'ActivationSparsity')
        self._means: list[Tensor] = []

    @contextlib.contextmanager
    def watching(self, graph: ChannelGraph, masks: Masks | None) -> Iterator[None]:
        pushed = self._pushed(graph, masks)
        watchers = [(probe, partial(self._add_mean, probe, weight)) for probe, weight in pushed]
        try:
            with probing(watchers):
                yield
        finally:
            self._means = []

    def forward_penalty(self, progress: Progress) -> Tensor | None:
        means, self._means = self._means, []
        if not means:
            return None
        total = torch.stack([mean.to(means[0]) for mean in means]).sum()
        return self.strength_at(progress) * total

    def _pushed(self, graph: ChannelGraph, masks: Masks | None) -> Iterator[tuple[Probe, Tensor]]:
        """Yield each probe whose units are pushed, and their weights, ``(units,)``."""
        factors = self.group_factors(graph)
        removed = self.needed_masks(graph, masks) if self.only_removed else {}
        for probe in reader_probes(graph):
            size = probe.index.shape[0]
            # A group without a mask is kept.
            kept = removed.get(probe.group, torch.ones(size).bool()) if self.only_removed else None
            weight = torch.ones(size) if kept is None else (~kept).float()
            if bool(weight.any()):
                yield probe, weight * factors[probe.group]

    def _add_mean(self, probe: Probe, weight: Tensor, activations: Tensor) -> None:
        # Ignore validation passes.
        if torch.is_grad_enabled() and activations.requires_grad:
            means = probe.maps(activations).float().abs().transpose(0, 1).flatten(1).mean(dim=1)
            self._means.append((means * weight.to(means.device)).sum() * probe.index.shape[1])


easypruner_components = hookimpl(lambda: [ActivationSparsity])
