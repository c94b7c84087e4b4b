"""Regularizer: brings removed channels to zero on a fixed course (from EasyPruner 1.0)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer

from easypruner import Masks, Progress, Regularizer, Schedule, hookimpl
from easypruner.base.checks import check_number
from easypruner.graph import ChannelGraph
from easypruner.strategies.regularizers.norm_scales import ScaleSelection
from easypruner.strategies.regularizers.pushing import PreparedOnce
from easypruner.strategies.regularizers.selected import SelectedScales


class GradDecay(Regularizer):
    """Shrinks the norm scales and biases of removed channels to zero, over N updates.

    N is the number of updates in ``share`` of the stage. At update n = 0, 1, ..., N - 1, the values
    are multiplied by (N - n - 1) / (N - n), which alone would bring them to zero linearly. Their
    gradients are multiplied by 1 - t with t = (n + 1) / N, so that the loss moves them less and
    less. From update N - 1, both are zero, under any optimizer.

    The momentum of an optimizer would still move the values. Once they are zero, the optimizer's
    state of them is therefore set to zero as well. If the optimizer is unknown (progress without
    an optimizer), the values are set to zero again at each update, and the last step may change
    them slightly. Weight decay does not change zeros.

    Use when:
        The stage is short and the removed channels must be zero at its end, biases included. There
        is no strength to tune. It needs masks, so put ``SelectMask`` or ``LoadMask`` before.

    Fails when:
        The network needs the channels: they disappear whatever the loss says, and the rest of the
        stage has to repair it. Groups without a batch norm need ``without_scales='weights'``. It
        holds under any optimizer; Adam and its relatives undo a part of the fading of gradients,
        but not of the values.

    Values:
        A ``share`` of 0.5 leaves half of the stage for the remaining channels to adapt.

    Args:
        share: the share of the stage after which the values are zero, above 0 and up to 1.
        scales: the kinds of norm whose scales and biases are pushed: ``'batch_norm'``,
            ``'instance_norm'``, ``'group_norm'`` or ``'layer_norm'``, or several.
        without_scales: what happens to groups that lose units, but do not have such a norm:
            ``'error'`` raises an error, ``'weights'`` shrinks the weights that produce the units,
            and ``'skip'`` pushes nothing.
    """

    example_arguments: ClassVar = {}

    def __init__(
        self,
        share: float = 0.5,
        scales: str | Sequence[str] = ('batch_norm',),
        without_scales: str = 'error',
    ) -> None:
        super().__init__(strength=1.0)
        self.share = check_number(share, 'share', 'GradDecay', above=0, most=1)
        self._selection = ScaleSelection(scales, without_scales, 'GradDecay', biases=True)
        self._prepared = PreparedOnce(self._prepare)

    @torch.no_grad()
    def add_gradient(self, graph: ChannelGraph, masks: Masks | None, progress: Progress) -> None:
        """Multiply values and gradients in place. Called once per optimizer update."""
        selected = self._prepared(graph, masks)
        self._selection.kinds.refuse_lacking(selected.lacking)
        updates = max(round(self.share * progress.updates), 1)
        left = max(updates - progress.update - 1, 0)
        pairs = list(zip(selected.tensors, selected.weights, strict=True))
        _multiply(pairs, left / (left + 1))
        gradients = [(tensor.grad, weight) for tensor, weight in pairs if tensor.grad is not None]
        _multiply(gradients, left / updates)
        if left == 0 and progress.optimizer is not None:
            _clear_state(progress.optimizer, pairs)

    def reach(self, schedule: Schedule) -> float:
        """Return infinity, because the values come to zero under any schedule."""
        return float('inf')

    def pushed_names(self, graph: ChannelGraph, masks: Masks | None) -> list[str]:
        return self._prepared(graph, masks).names

    def largest(self, graph: ChannelGraph, masks: Masks | None) -> float:
        return self._prepared(graph, masks).largest('GradDecay')

    def _prepare(self, graph: ChannelGraph, masks: Masks | None) -> SelectedScales:
        keep = graph.keep(self.needed_masks(graph, masks))
        return self._selection.select(graph, {key: ~kept for key, kept in keep.items()}, {})


def _multiply(values: Sequence[tuple[Tensor, Tensor]], factor: float) -> None:
    """Multiply tensors in place by a factor, at the entries with the weight 1 instead of 0."""
    if values:
        tensors, weights = zip(*values, strict=True)
        torch._foreach_addcmul_(list(tensors), list(tensors), list(weights), value=factor - 1)


def _clear_state(optimizer: Optimizer, pairs: Sequence[tuple[Tensor, Tensor]]) -> None:
    """Set the state of an optimizer to zero, at the entries with the weight 1."""
    states = [
        (state, weight)
        for tensor, weight in pairs
        for state in optimizer.state.get(tensor, {}).values()
        if isinstance(state, Tensor) and state.shape == tensor.shape
    ]
    _multiply(states, 0.0)


easypruner_components = hookimpl(lambda: [GradDecay])
