"""Regularizer: a penalty on all norm scales (network slimming; Liu et al., arXiv 1708.06519)."""

from __future__ import annotations

import torch
from torch import Tensor

from easypruner import Masks, hookimpl
from easypruner.graph import ChannelGraph
from easypruner.strategies.regularizers.norm_scales import SCALES, operands_named
from easypruner.strategies.regularizers.scale_penalty import ScalePenalty


class GlobalSparsity(ScalePenalty):
    """strength * sum of |gamma| over all batch norm scales (equation 1 of the paper).

    It also pushes the scales of channels that cannot be pruned. A push is the gradient
    strength * sign(gamma), added before every optimizer update. Scales stay where the gradient of
    the loss is larger.

    Use when:
        Channels should be ranked by ``BNScale`` afterwards. It needs one training stage, during
        which all scales compete, and no masks.

    Fails when:
        Accuracy right after the cut matters, and the strength is low: then no gap opens between
        scales that stay and scales that go. With a high strength, the scales that stay are shrunk
        as well; ``MaskSparsity`` or ``Polarization`` avoid this. Groups without a batch norm are
        not pushed by default. It holds under SGD in both forms. Under Adam and its relatives it
        holds as a gradient only, and scales move by at most their learning rate at each update.

    Values:
        The paper uses a ``strength`` of 1e-4 or 1e-5 over 160 epochs on CIFAR. For a shorter stage,
        use a higher one, or ``dict(reach=R)`` with R near the typical scale. Under AdamW, give the
        number that SGD has, and a learning rate of the norms with which the plan's reach is above
        the scales, such as
        ``optim_wrapper=dict(paramwise_cfg=dict(custom_keys={'bn': dict(lr_mult=20)}))``.
    """

    @property
    def selects(self) -> bool:
        # Under l2, all scales shrink by the same share.
        return self.norm != 'l2'

    def pushed(self, graph: ChannelGraph, masks: Masks | None) -> dict[tuple[str, int], Tensor]:
        remove_all = {n: torch.zeros(g.size, dtype=torch.bool) for n, g in graph.groups.items()}
        in_groups = {key: ~keep for key, keep in graph.keep(remove_all).items()}
        scales = operands_named(graph, {f'{norm}.weight' for norm in SCALES.values()})
        return in_groups | {
            (name, 0): torch.ones(graph.parameter(name).shape, dtype=torch.bool) for name in scales
        }


easypruner_components = hookimpl(lambda: [GlobalSparsity])
