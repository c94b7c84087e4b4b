"""The L1 penalty on batch-norm scales, for any choice of the scales that are pushed."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from easypruner.contracts import Progress, Regularizer
from easypruner.errors import EasyPrunerError
from easypruner.masks import Masks

if TYPE_CHECKING:
    from easypruner.graph import ChannelGraph


@dataclass(frozen=True)
class _Plan:
    graph: ChannelGraph
    masks: Masks | None
    scales: list[Tensor]
    weights: list[Tensor]


class ScalePenalty(Regularizer):
    """strength * sum of |scale| over the batch-norm scales that :meth:`pushed` chooses.

    The gradient is strength * sign(scale) on these and nothing on the others; it is added with a
    few fused calls, whatever the number of layers.
    """

    def __init__(self, strength: float | Mapping[str, float]) -> None:
        super().__init__(strength)
        self._plan: _Plan | None = None

    @abstractmethod
    def pushed(self, graph: ChannelGraph, masks: Masks | None) -> dict[str, Tensor]:
        """Return batch-norm weight's name -> bool tensor ``(channels,)``, True = pushed to 0."""

    def penalty(self, graph: ChannelGraph, masks: Masks | None) -> Tensor:
        plan = self._planned(graph, masks)
        parts = [
            (scale.abs() * weight).sum()
            for scale, weight in zip(plan.scales, plan.weights, strict=True)
        ]
        return self.strength * torch.stack(parts).sum()

    @torch.no_grad()
    def add_gradient(self, graph: ChannelGraph, masks: Masks | None, progress: Progress) -> None:
        plan = self._planned(graph, masks)
        pushes = torch._foreach_sign(plan.scales)
        torch._foreach_mul_(pushes, plan.weights)
        factor = (
            self.strength if progress.grad_scale is None else progress.grad_scale * self.strength
        )
        torch._foreach_mul_(pushes, factor)
        torch._foreach_add_([_gradient(scale) for scale in plan.scales], list(pushes))

    def largest(self, graph: ChannelGraph, masks: Masks | None) -> float:
        plan = self._planned(graph, masks)
        return max(
            float((scale.detach().abs() * weight).max())
            for scale, weight in zip(plan.scales, plan.weights, strict=True)
        )

    def _planned(self, graph: ChannelGraph, masks: Masks | None) -> _Plan:
        plan = self._plan
        if plan is None or plan.graph is not graph or plan.masks is not masks:
            plan = self._plan = self._make_plan(graph, masks)
        return plan

    def _make_plan(self, graph: ChannelGraph, masks: Masks | None) -> _Plan:
        pushed = self.pushed(graph, masks)
        if not pushed:
            raise EasyPrunerError(
                f'{type(self).__name__} pushes batch-norm scales to zero, but none are to be '
                f'pushed in this {type(graph.model).__name__}: it has no batch norm with a scale, '
                'or the masks remove none of its channels'
            )
        scales = [graph.parameter(name) for name in pushed]
        weights = [
            mask.to(device=scale.device, dtype=scale.dtype)
            for scale, mask in zip(scales, pushed.values(), strict=True)
        ]
        return _Plan(graph, masks, scales, weights)


def _gradient(parameter: Tensor) -> Tensor:
    """Return the gradient of a parameter, which is made of zeros if it has none."""
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad


def batch_norm_scales(graph: ChannelGraph) -> list[str]:
    """Return the names of all parameters that a batch norm multiplies with."""
    return [name for name, operand in graph.operands.items() if operand == 'batch_norm.weight']
