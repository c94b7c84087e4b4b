"""The stage Zero: a cut that can be taken back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from easypruner.base.checks import check_flag, check_text
from easypruner.errors import ConfigError
from easypruner.graph import ChannelGraph
from easypruner.graph.recording.parametrized import refresh, weight_norms
from easypruner.pipeline.stages.common import loaded_runner, with_row, with_weights
from easypruner.strategies import Stage
from easypruner.strategies.stages.forecast import Forecast, Step
from easypruner.strategies.stages.state import PruningState

_NO_MASKS = 'Zero has no masks to go by; put a SelectMask or LoadMask stage before it'


class Zero(Stage):
    """Sets what makes the channels that masks remove to zero, and cuts nothing.

    Soft filter pruning (He et al., 2018, arXiv 1808.06866) does so after every epoch: what was
    zeroed trains on, and is kept next time if it has come back. The masks stay selected, so that a
    Prune may follow.

    As in the paper these are the filters alone. A channel then holds what its norm or bias adds,
    the same everywhere; were that zero as well, no gradient would pass a ReLU behind it, and it
    could not come back. ``Prune(compensate='mean')`` makes up for such constants.

    Args:
        norms: set biases, and scales and biases of norms, to zero as well.
        row: name of the row that the result gets in the final table; None for no row.
        name: of the stage.
    """

    def __init__(self, norms: bool = False, row: str | None = None, name: str = 'zero') -> None:
        super().__init__(name)
        self.norms = check_flag(norms, 'norms', 'Zero')
        self.row = check_text(row, 'row', 'Zero')

    def forecast(self, before: Forecast) -> Forecast:
        before.check_not_fixed()
        if not before.masks:
            raise ConfigError(_NO_MASKS)
        return replace(before, step=Step(zeroes=True))

    def run(self, state: PruningState) -> PruningState:
        """Zero, save the weights, evaluate."""
        masks = state.load_masks()
        if masks is None:
            raise ConfigError(_NO_MASKS)
        runner = loaded_runner(state)
        graph = state.run.trace(runner.plain_model)
        masks.check(graph)
        zero(graph, masks, self.norms)
        state = with_weights(state, runner.plain_model)
        return with_row(state, self.row, runner, graph)

    def plan(self, state: PruningState) -> str:
        return 'set the filters of what would go to zero' + (', and its norms' * self.norms)


@torch.no_grad()
def zero(graph: ChannelGraph, masks: Mapping[str, Tensor], norms: bool = False) -> None:
    """Set to zero, in place, the parameters that make the channels which ``masks`` remove.

    Args:
        graph: of the model.
        masks: group -> bool tensor ``(units,)``, True = keep.
        norms: biases, and scales and biases of norms, besides the filters.
    """
    modules = dict(graph.model.named_modules())
    normed = {norm.direction: norm for norm in weight_norms(modules)}
    ratios = {
        norm: norm.ratio(graph.parameter(norm.length), graph.parameter(norm.direction))
        for norm in normed.values()
    }
    for name, mask in masks.items():
        group = graph.groups[name]
        for member in group.members if norms else group.producers:
            tensor = graph.parameter(member.param)
            norm = normed.get(member.param)
            # Of a weight that is a length and a direction, the length is zero: a direction has to
            # have one.
            if norm is not None and norm.dim == member.dim:
                continue
            if member.role == 'out' and isinstance(tensor, nn.Parameter):
                removed = member.index[~mask].flatten().to(tensor.device)
                tensor.index_fill_(member.dim, removed, 0.0)
                if norm is not None:
                    graph.parameter(norm.length).copy_(norm.rescaled(ratios[norm], tensor))
    refresh(modules.values())
