"""Regularizer: takes removed channels to zero on a set course (GradDecay of EasyPruner 1.0)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from easypruner import Component, Masks, Progress, Regularizer, Schedule, hookimpl
from easypruner.base.checks import check_name, check_number
from easypruner.graph import ChannelGraph
from easypruner.strategies.regularizers.norm_scales import (
    WITHOUT_SCALES,
    Choice,
    Chosen,
    norms_of,
    nothing_to_push,
    refuse_lacking,
)
from easypruner.strategies.regularizers.pushing import PlanOnce, check_numbers


class GradDecay(Regularizer):
    """Pulls the norm scales and biases of the channels that will go to zero, over N updates.

    N is a share of the stage. At update n = 0, 1, ..., N - 1 their values are multiplied by
    (N - n - 1) / (N - n), which alone takes them down on a straight line, and their own gradients
    by 1 - t, t = (n + 1) / N, so that the loss can move them ever less. From update N - 1 on both
    are zero. There is no penalty and no strength to find: however short the stage, the channels
    are silent at its end, biases included.

    What an optimizer has gathered before, as momentum, would move them on after that: once they
    are at zero, so is what the optimizer keeps of them. Where it is not known (progress without
    an optimizer), they are set back to zero at each update, and the last step may leave a little.
    Weight decay does nothing at zero.

    Args:
        share: of the stage after which they are zero, above 0 and up to 1.
        scales: the kinds of norm, of :data:`easypruner.strategies.regularizers.norm_scales.SCALES`.
        without_scales: what becomes of groups that lose units and have no such norm: ``'error'``,
            ``'weights'`` takes down the weights that make these units, ``'skip'`` leaves them.
    """

    def __init__(
        self,
        share: float = 0.5,
        scales: str | Sequence[str] = ('batch_norm',),
        without_scales: str = 'error',
    ) -> None:
        super().__init__(strength=1.0)
        self.share = check_number(share, 'share', 'GradDecay', above=0, most=1)
        self.scales = (scales,) if isinstance(scales, str) else tuple(scales)
        check_name(without_scales, 'without_scales', 'GradDecay', WITHOUT_SCALES)
        self._choice = Choice(norms_of(scales, 'GradDecay'), without_scales, biases=True)
        self._planned = PlanOnce(self._plan)

    @torch.no_grad()
    def add_gradient(self, graph: ChannelGraph, masks: Masks | None, progress: Progress) -> None:
        """Scale gradients and values in place; called once per optimizer update."""
        plan = self._planned(graph, masks)
        refuse_lacking(plan.lacking, 'GradDecay', self.scales)
        updates = max(round(self.share * progress.updates), 1)
        left = max(updates - progress.update - 1, 0)
        _multiply(list(zip(plan.tensors, plan.weights, strict=True)), left / (left + 1))
        faded = [
            (tensor.grad, weight)
            for tensor, weight in zip(plan.tensors, plan.weights, strict=True)
            if tensor.grad is not None
        ]
        _multiply(faded, left / updates)
        if left == 0 and progress.optimizer is not None:
            _forget(progress.optimizer, plan)

    def reach(self, schedule: Schedule) -> float:
        """Return infinity: whatever the schedule, they come to zero."""
        return float('inf')

    @torch.no_grad()
    def largest(self, graph: ChannelGraph, masks: Masks | None) -> float:
        plan = self._planned(graph, masks)
        check_numbers(plan.names, plan.tensors, 'GradDecay')
        pairs = zip(plan.tensors, plan.weights, strict=True)
        return max((float((tensor.abs() * w).max()) for tensor, w in pairs), default=0.0)

    def _plan(self, graph: ChannelGraph, masks: Masks | None) -> Chosen:
        keep = graph.keep(self.needed_masks(graph, masks))
        if not keep:
            return Chosen()
        chosen = self._choice.of(graph, {place: ~kept for place, kept in keep.items()})
        if not chosen.tensors:
            refuse_lacking(chosen.lacking, 'GradDecay', self.scales)
            raise nothing_to_push(graph, 'GradDecay', self.scales)
        return chosen

    @classmethod
    def example(cls, graph: ChannelGraph, folder: Path) -> Mapping[str, Any]:
        return {}


def _multiply(values: Sequence[tuple[Tensor, Tensor]], factor: float) -> None:
    """Multiply values in place, each where its weight is 1 rather than 0."""
    if values:
        tensors, weights = zip(*values, strict=True)
        torch._foreach_addcmul_(list(tensors), list(tensors), list(weights), value=factor - 1)


def _forget(optimizer: Optimizer, plan: Chosen) -> None:
    """Set to zero what an optimizer has gathered of what is at zero."""
    gathered = [
        (value, weight)
        for tensor, weight in zip(plan.tensors, plan.weights, strict=True)
        for value in optimizer.state.get(tensor, {}).values()
        if isinstance(value, Tensor) and value.shape == tensor.shape
    ]
    _multiply(gathered, 0.0)


@hookimpl
def easypruner_components() -> Iterable[type[Component]]:
    return [GradDecay]
