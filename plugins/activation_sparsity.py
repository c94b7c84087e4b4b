"""Regularizer: the mean activations of channels (Georgiadis, 2019, arXiv 1812.04056)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from functools import partial

import torch
from torch import Tensor

from easypruner import Component, Masks, Progress, Regularizer, hookimpl
from easypruner.base.checks import check_flag
from easypruner.graph import ChannelGraph
from easypruner.strategies.measures.activations import Probe, probing, reader_probes


class ActivationSparsity(Regularizer):
    r"""strength * sum over channels of the mean of |activation|, an L1 penalty on what they hold.

    Equation 1 of the paper, which penalizes the L1 norm of activation maps: here each channel
    counts by its mean over the samples and positions of a batch. Behind a ReLU activations are not
    negative, so that this is the L1 norm of the vector of channel means. Channels are probed where
    layers read them, behind norm and activation; one that several layers read counts as often.

    It silences channels whatever makes them: scale, bias and weights together. A channel behind a
    ReLU that is silent on the training data has no gradient any more, and stays silent.

    Args:
        strength: lambda. It has no reach: it does not act on parameters themselves.
        only_removed: push only the channels that masks remove; otherwise all.
        strength_schedule: as of :class:`easypruner.Regularizer`.
        group_strengths: as of :class:`easypruner.Regularizer`.
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
        watchers = [(probe, partial(self._see, probe, weight)) for probe, weight in pushed]
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
        """Yield each probe that is pushed, and the weight of each of its units there."""
        factors = self.group_factors(graph)
        removed = self.needed_masks(graph, masks) if self.only_removed else {}
        for probe in reader_probes(graph):
            size = probe.index.shape[0]
            # A group that the masks do not name is kept.
            kept = removed.get(probe.group, torch.ones(size).bool()) if self.only_removed else None
            weight = torch.ones(size) if kept is None else (~kept).float()
            if bool(weight.any()):
                yield probe, weight * factors[probe.group]

    def _see(self, probe: Probe, weight: Tensor, activations: Tensor) -> None:
        # A validation in between is not trained on.
        if torch.is_grad_enabled() and activations.requires_grad:
            means = probe.maps(activations).float().abs().transpose(0, 1).flatten(1).mean(dim=1)
            self._means.append((means * weight.to(means.device)).sum() * probe.index.shape[1])


@hookimpl
def easypruner_components() -> Iterable[type[Component]]:
    return [ActivationSparsity]
