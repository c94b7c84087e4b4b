"""The comparison of slim() with a target: the cut on its grid, and one with widths of any size."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from easypruner.base.modules import copy_of
from easypruner.base.randomness import fixed_seed
from easypruner.errors import EasyPrunerError
from easypruner.graph import ChannelGraph, Masks
from easypruner.runtimes.runtime import Runtime
from easypruner.runtimes.widths import Target
from easypruner.slimming.selection import Selection
from easypruner.slimming.target_times import TargetSummary, TargetTimes
from easypruner.slimming.with_plugins import prune
from easypruner.strategies import Budget, Context, MaskSource
from easypruner.strategies.budgets.costs import CostBudget


@dataclass(frozen=True)
class TargetComparison:
    """What is compared with a cut for a target.

    Attributes:
        runtime: the runtime.
        outline: the summary without times.
        any_widths: a copy of the network that the same budget has cut to widths of any size; None
            if the source does not rank scores, or the budget finds its masks by measuring.
    """

    runtime: Runtime
    outline: TargetSummary
    any_widths: nn.Module | None

    @classmethod
    def before(
        cls, graph: ChannelGraph, selection: Selection, source: MaskSource, context: Context
    ) -> TargetComparison | None:
        """Prepare the comparison before the cut; None if there is no target.

        Args:
            graph: the graph of the network.
            selection: the selected masks.
            source: the source that selected them.
            context: the context of the source.
        """
        if not isinstance(graph.target, Target):
            return None
        runtime, masks = graph.target.runtime, selection.masks
        free = _any_widths(graph, selection, source, context)
        shares = None if free is None else (selection.kept_share(masks), selection.kept_share(free))
        known = None if shares is None or None in shares else shares
        outline = TargetSummary.of(graph.target, graph, masks, known, None)  # type: ignore[arg-type]
        network = None
        if free is not None and not runtime.missing():
            network = copy_of(graph.model)
            prune(network, free, graph=graph.on(network))
        return cls(runtime, outline, network)

    def summary(self, inputs: Any, full: nn.Module, pruned: nn.Module) -> TargetSummary:
        """Return the summary after the cut, with times if the runtime is installed.

        Args:
            inputs: the example inputs.
            full: the unpruned network.
            pruned: the pruned network.
        """
        if self.runtime.missing():
            return self.outline
        networks = (copy_of(full), copy_of(pruned), self.any_widths)
        return replace(self.outline, times=TargetTimes.of(self.runtime, inputs, *networks))


def _any_widths(
    graph: ChannelGraph, selection: Selection, source: MaskSource, context: Context
) -> Masks | None:
    """Return the masks of the same scores and budget without the grid; None if there are none."""
    if selection.scores is None or source.budget is None or _measures(source.budget):
        return None
    free = copy.copy(graph)
    free.limits = {name: replace(own, round_to=1) for name, own in graph.limits.items()}
    try:
        with fixed_seed(context.seed):
            return source.budget(selection.scores, free, context)
    except EasyPrunerError:
        return None


def _measures(budget: Budget) -> bool:
    """Return whether a budget finds its masks by measuring, which takes seconds."""
    return any(isinstance(part, CostBudget) and not part.exact for part in budget.parts())
