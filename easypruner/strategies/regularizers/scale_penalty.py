"""ScalePenalty: a penalty on selected norm scales."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from easypruner.base.checks import check_flag, check_name
from easypruner.errors import ConfigError
from easypruner.graph import ChannelGraph, Masks
from easypruner.strategies.regularizers.norm_scales import ScaleSelection
from easypruner.strategies.regularizers.pushing import (
    PreparedOnce,
    ensure_gradients,
    in_gradient_scale,
    shrinking_reach,
)
from easypruner.strategies.regularizers.regularizer import Regularizer
from easypruner.strategies.regularizers.schedule import Progress, Schedule
from easypruner.strategies.regularizers.selected import SelectedScales
from easypruner.strategies.regularizers.thresholds import Thresholds

NORMS = ('l1', 'l2', 'smooth_l1')


class ScalePenalty(Regularizer):
    """strength * sum of norm(scale) over the norm scales that :meth:`pushed` selects.

    The gradient is added with a few fused calls, whatever the number of layers. Scales that are
    not selected, and parameters that are not trainable, get no gradient.

    - ``'l1'``: |scale|; the gradient is strength * sign(scale).
    - ``'l2'``: scale^2 / 2; the gradient is strength * scale. Scales shrink exponentially and do
      not reach zero: with a reach of R, exp(-R) of a scale remains.
    - ``'smooth_l1'``: l1, but l2 for magnitudes below lr * strength, as in EasyPruner 1.0. The
      gradient is scale / lr, clamped to -strength..strength. One step of plain SGD sets such a
      scale to zero, where l1 would make it oscillate around zero.

    Args:
        norm: ``'l1'``, ``'l2'`` (half the square), or ``'smooth_l1'``.
        scales: the kinds of norm whose scales are pushed: ``'batch_norm'``, ``'instance_norm'``,
            ``'group_norm'`` or ``'layer_norm'``, or several. Batch and instance norms
            have separate statistics for each channel, so a channel with scale 0 only contributes
            its bias. Group and layer norms compute statistics over several channels. Removing a
            channel with scale 0 changes the others of its norm; calibrate or fine-tune after the
            cut.
        without_scales: what happens to groups without a trainable scale: ``'error'`` raises an
            error, ``'weights'`` pushes each weight that produces the channels, and ``'skip'``
            pushes nothing.
        biases: whether the biases of the norms are pushed as well, and of the layers whose weights
            are pushed. A channel with scale 0 still contributes its bias. None pushes them in the
            proximal form only.
    """

    def __init__(
        self,
        strength: float | Mapping[str, float],
        norm: str = 'l1',
        scales: str | Sequence[str] = ('batch_norm',),
        without_scales: str = 'skip',
        strength_schedule: str | Mapping[str, float] = 'constant',
        group_strengths: Mapping[str, float] | None = None,
        apply: str | None = None,
        biases: bool | None = False,
    ) -> None:
        owner = type(self).__name__
        self.norm = check_name(norm, 'norm', owner, NORMS)
        super().__init__(strength, strength_schedule, group_strengths, apply)
        if norm != 'l1' and self.loop is not None:
            raise ConfigError(
                f'strength={strength!r} of {owner} with norm={norm!r}, under which scales do not '
                'reach zero; leave norm out, or give a number or dict(reach=number)'
            )
        self._thresholds: Thresholds | None = None
        self.biases = biases if biases is None else check_flag(biases, 'biases', owner)
        self._prepared = PreparedOnce(self._prepare)
        self._selections = {
            biases: ScaleSelection(scales, without_scales, owner, biases)
            for biases in (False, True)
        }

    @property
    def shrinks(self) -> bool:
        return self.norm == 'l2'

    @property
    def _selection(self) -> ScaleSelection:
        """What is pushed; by default, biases only in the proximal form."""
        return self._selections[self.is_proximal if self.biases is None else self.biases]

    def schedule(self, schedule: Schedule) -> None:
        super().schedule(schedule)
        # The form may change what is pushed.
        self.refresh()

    def refresh(self) -> None:
        self._prepared = PreparedOnce(self._prepare)
        self._thresholds = None

    @abstractmethod
    def pushed(self, graph: ChannelGraph, masks: Masks | None) -> dict[tuple[str, int], Tensor]:
        """Return (parameter, dimension) -> bool tensor over its indices, True = pushed to zero.

        The result is empty if nothing should be pushed, as with masks that remove nothing.
        """

    def penalty(self, graph: ChannelGraph, masks: Masks | None, width: float = 0.0) -> Tensor:
        """Return the penalty at full :attr:`strength` as a scalar with a gradient.

        Args:
            graph: the channel graph of the model.
            masks: group -> bool tensor ``(units,)``, True = keep.
            width: the magnitude below which smooth l1 is l2. It is lr * strength, but this method
                does not know lr. With 0, smooth l1 is l1. A group's own factor multiplies it.
        """
        selected = self.selected(graph, masks)
        if not selected.tensors:
            return torch.zeros((), requires_grad=True)
        parts = [
            self._norm_of(tensor, weight, width).sum()
            for tensor, weight in zip(selected.tensors, selected.weights, strict=True)
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
        selected = self.selected(graph, masks)
        if not selected.tensors:
            return
        strength = self.strength_at(progress)
        gradients = ensure_gradients(selected.tensors)
        if self.norm == 'smooth_l1' and progress.lr > 0:
            pushes = torch._foreach_div(selected.tensors, progress.lr)
            most = torch._foreach_mul(selected.weights, strength)
            torch._foreach_clamp_max_(pushes, most)
            torch._foreach_clamp_min_(pushes, torch._foreach_neg(most))
            if progress.grad_scale is not None:
                torch._foreach_mul_(pushes, progress.grad_scale)
            torch._foreach_add_(gradients, pushes)
            return
        slopes = selected.tensors if self.norm == 'l2' else torch._foreach_sign(selected.tensors)
        factor = in_gradient_scale(strength, progress)
        if isinstance(factor, Tensor):
            weights = torch._foreach_mul(selected.weights, factor)
            torch._foreach_addcmul_(gradients, list(slopes), list(weights))
        else:
            torch._foreach_addcmul_(gradients, list(slopes), selected.weights, value=factor)

    @torch.no_grad()
    def shrink(self, graph: ChannelGraph, masks: Masks | None, progress: Progress) -> None:
        """Apply soft thresholding for ``'l1'``: |p| <- max(|p| - threshold, 0)."""
        if self.norm != 'l1':
            super().shrink(graph, masks, progress)
            return
        selected = self.selected(graph, masks)
        if not selected.tensors:
            return
        optimizer = progress.known_optimizer()
        if self._thresholds is None or not self._thresholds.fit(selected, optimizer):
            self._thresholds = Thresholds(selected, optimizer)
        self._thresholds.apply(self.strength_at(progress), progress)

    def pushed_names(self, graph: ChannelGraph, masks: Masks | None) -> list[str]:
        return self._prepared(graph, masks).names

    def selected(self, graph: ChannelGraph, masks: Masks | None) -> SelectedScales:
        """Return the entries that are pushed.

        :meth:`largest` does not use it, because it is called before the masks are known.

        Raises:
            EasyPrunerError: a group lacks a scale that should be pushed.
        """
        selected = self._prepared(graph, masks)
        self._selection.kinds.refuse_lacking(selected.lacking)
        return selected

    @torch.no_grad()
    def magnitudes(self, graph: ChannelGraph, masks: Masks | None) -> dict[str, float]:
        selected = self.selected(graph, masks)
        pairs = zip(selected.names, selected.tensors, selected.weights, strict=True)
        pushed = {name: (t.abs() * (w > 0)).cpu() for name, t, w in pairs}
        # A norm behind a concatenation has channels of several groups.
        found = {
            name: [
                float(pushed[m.param].index_select(m.dim, m.index.flatten()).max())
                for m in group.members
                if m.param in pushed
            ]
            for name, group in graph.groups.items()
        }
        return {name: max(values) for name, values in found.items() if values}

    def largest(self, graph: ChannelGraph, masks: Masks | None) -> float:
        return self._prepared(graph, masks).largest(type(self).__name__)

    def needed_reach(self, graph: ChannelGraph, masks: Masks | None) -> float:
        largest = self.largest(graph, masks)
        return shrinking_reach(largest) if self.norm == 'l2' else 2 * largest

    def _prepare(self, graph: ChannelGraph, masks: Masks | None) -> SelectedScales:
        pushed = self.pushed(graph, masks)
        return self._selection.select(graph, pushed, self.group_factors(graph) if pushed else {})
