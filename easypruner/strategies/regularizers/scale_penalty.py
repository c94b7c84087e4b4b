"""The penalty on norm scales, for any choice of the scales that are pushed."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from easypruner.base.checks import check_name
from easypruner.graph import ChannelGraph
from easypruner.graph.masks import Masks
from easypruner.strategies.regularizers.norm_scales import (
    WITHOUT_SCALES,
    Choice,
    Chosen,
    norms_of,
    nothing_to_push,
    refuse_lacking,
)
from easypruner.strategies.regularizers.pushing import (
    PlanOnce,
    check_numbers,
    gradients,
    scaled,
    shrinking_reach,
)
from easypruner.strategies.regularizers.regularizer import Regularizer
from easypruner.strategies.regularizers.schedule import Progress

NORMS = ('l1', 'l2', 'smooth_l1')


class ScalePenalty(Regularizer):
    """strength * sum of norm(scale) over the norm scales that :meth:`pushed` chooses.

    The gradient is added with a few fused calls, whatever the number of layers, and is nothing
    for what is not chosen, and for parameters that do not train:

    - ``'l1'``: |scale|; the gradient is strength * sign(scale).
    - ``'l2'``: scale^2 / 2; the gradient is strength * scale. It shrinks a scale by a share of
      itself, so never to zero: where the reach is R, to exp(-R) of what it was.
    - ``'smooth_l1'``: as l1, but l2 for magnitudes below lr * strength, as the released EasyPruner
      1.0 has it: the gradient is scale / lr, clamped to -strength..strength. One step of plain SGD
      then lands such a scale at zero, which l1 makes swing about zero.

    Args:
        strength: lambda. ``dict(reach=R)`` picks it from the schedule.
        norm: a name of :data:`NORMS`.
        scales: the kinds of norm whose scales are pushed, of
            :data:`easypruner.strategies.regularizers.norm_scales.SCALES`. Each batch or instance
            norm channel has its own statistics, and one with scale 0 is gone but for its bias.
            Group and layer norm silence a channel as well, but their statistics still see it: when
            it is cut, what the other channels of its norm hold changes. There, calibrate or
            fine-tune after the cut.
        without_scales: what becomes of groups that have no such scale (or none that trains):
            ``'error'``; ``'weights'`` pushes, entry by entry, the weights that make the channels;
            ``'skip'`` leaves them alone.
        strength_schedule: as of :class:`easypruner.Regularizer`.
        group_strengths: as of :class:`easypruner.Regularizer`.
    """

    def __init__(
        self,
        strength: float | Mapping[str, float],
        norm: str = 'l1',
        scales: str | Sequence[str] = ('batch_norm',),
        without_scales: str = 'skip',
        strength_schedule: str | Mapping[str, float] = 'constant',
        group_strengths: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(strength, strength_schedule, group_strengths)
        owner = type(self).__name__
        self.norm = check_name(norm, 'norm', owner, NORMS)
        self.scales = (scales,) if isinstance(scales, str) else tuple(scales)
        check_name(without_scales, 'without_scales', owner, WITHOUT_SCALES)
        self._choice = Choice(norms_of(scales, owner), without_scales)
        self._planned = PlanOnce(self._plan)

    @abstractmethod
    def pushed(self, graph: ChannelGraph, masks: Masks | None) -> dict[tuple[str, int], Tensor]:
        """Return (parameter, dim) -> bool tensor of that dimension's size, True = pushed to 0.

        Empty where nothing is asked for, as by masks that remove nothing.
        """

    def penalty(self, graph: ChannelGraph, masks: Masks | None, width: float = 0.0) -> Tensor:
        """Return the penalty at full :attr:`strength` as a scalar that has a gradient.

        Args:
            graph: of the model.
            masks: True = keep.
            width: of smooth l1, the magnitude under which it is l2: lr * strength, of which this
                method knows no lr. With 0 it is l1. A group's own factor multiplies it.
        """
        plan = self._complete(graph, masks)
        if not plan.tensors:
            return torch.zeros((), requires_grad=True)
        parts = [
            self._norm_of(tensor, weight, width).sum()
            for tensor, weight in zip(plan.tensors, plan.weights, strict=True)
        ]
        return self.strength * torch.stack([part.to(parts[0]) for part in parts]).sum()

    def _norm_of(self, tensor: Tensor, weight: Tensor, width: float) -> Tensor:
        if self.norm == 'l2':
            return weight * tensor.square() / 2
        if self.norm == 'l1' or width == 0:
            return weight * tensor.abs()
        own = weight * width
        inside = tensor.square() / (2 * width)
        inside = torch.where(weight > 0, inside, 0)
        return torch.where(tensor.abs() < own, inside, weight * (tensor.abs() - own / 2))

    @torch.no_grad()
    def add_gradient(self, graph: ChannelGraph, masks: Masks | None, progress: Progress) -> None:
        plan = self._complete(graph, masks)
        if not plan.tensors:
            return
        strength = self.strength_at(progress)
        added = gradients(plan.tensors)
        if self.norm == 'smooth_l1' and progress.lr > 0:
            pushes = torch._foreach_div(plan.tensors, progress.lr)
            most = torch._foreach_mul(plan.weights, strength)
            torch._foreach_clamp_max_(pushes, most)
            torch._foreach_clamp_min_(pushes, torch._foreach_neg(most))
            if progress.grad_scale is not None:
                torch._foreach_mul_(pushes, progress.grad_scale)
            torch._foreach_add_(added, pushes)
            return
        slopes = plan.tensors if self.norm == 'l2' else torch._foreach_sign(plan.tensors)
        factor = scaled(strength, progress)
        if isinstance(factor, Tensor):
            weights = torch._foreach_mul(plan.weights, factor)
            torch._foreach_addcmul_(added, list(slopes), list(weights))
        else:
            torch._foreach_addcmul_(added, list(slopes), plan.weights, value=factor)

    @torch.no_grad()
    def largest(self, graph: ChannelGraph, masks: Masks | None) -> float:
        plan = self._planned(graph, masks)
        check_numbers(plan.names, plan.tensors, type(self).__name__)
        return max(
            (
                float(torch.where(weight > 0, tensor.abs() / weight, 0).max())
                for tensor, weight in zip(plan.tensors, plan.weights, strict=True)
            ),
            default=0.0,
        )

    def needed_reach(self, graph: ChannelGraph, masks: Masks | None) -> float:
        largest = self.largest(graph, masks)
        return shrinking_reach(largest) if self.norm == 'l2' else 2 * largest

    def _complete(self, graph: ChannelGraph, masks: Masks | None) -> Chosen:
        """Return the plan if it has all that should be pushed.

        Only :meth:`largest` does without, which is asked before it is known what will go.
        """
        plan = self._planned(graph, masks)
        refuse_lacking(plan.lacking, type(self).__name__, self.scales)
        return plan

    def _plan(self, graph: ChannelGraph, masks: Masks | None) -> Chosen:
        pushed = self.pushed(graph, masks)
        if not pushed:
            return Chosen()
        chosen = self._choice.of(graph, pushed, self.group_factors(graph))
        if not chosen.tensors:
            refuse_lacking(chosen.lacking, type(self).__name__, self.scales)
            raise nothing_to_push(graph, type(self).__name__, self.scales)
        return chosen
