"""Search: what mask sources have in common that try candidates on data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from easypruner.contracts import Budget, Context, MaskSource
from easypruner.errors import ConfigError, EasyPrunerError
from easypruner.toolkit.candidates import Trial, Trials
from easypruner.toolkit.scores import reduce_layers
from easypruner.toolkit.units import score_units, unit_sums, wide

if TYPE_CHECKING:
    from easypruner.graph import ChannelGraph


class Search(MaskSource):
    """Tries candidates on data; which units of a group go first, another source says.

    Args:
        budget: how much may stay.
        source: ranks the units within each group, without a budget of its own; by default the L1
            norm of the weights that make a unit's channels.
        by: ``'loss'`` on training batches, so that the validation data stay unseen, or
            ``'accuracy'`` on the validation data.
        batches: of training data for the loss.
        calibration_batches: of training data on which a candidate's batch norms are adapted; 0
            leaves them alone.
    """

    def __init__(
        self,
        budget: Budget | Sequence[Budget] | None,
        source: MaskSource | None,
        by: str,
        batches: int,
        calibration_batches: int,
    ) -> None:
        super().__init__(budget)
        name = type(self).__name__
        if source is not None and type(source).score is MaskSource.score:
            raise ConfigError(
                f'source={type(source).__name__} of {name} ranks no units; expected a source that '
                'scores them, such as L1Norm'
            )
        if source is not None and source.budget is not None:
            raise ConfigError(
                f'the source of {name} only ranks units; give its budget to {name} instead'
            )
        self.source = source
        self.trial = Trial(by, batches, calibration_batches, name)

    def check(self) -> None:
        if self.source is not None:
            self.source.check()

    def try_on(self, graph: ChannelGraph, context: Context) -> None:
        self.needed_budget()
        super().try_on(graph, context)

    def trials(self, graph: ChannelGraph, context: Context) -> Trials:
        """Return what tries candidates of a graph, and remembers them."""
        return Trials(self.trial, graph, context)

    def ranks(self, graph: ChannelGraph, context: Context) -> dict[str, Tensor]:
        """Return group -> ``(units,)``, higher = keep; they compare within a group only."""
        if self.source is not None:
            return self.source.ranking_scores(graph, context)
        norms = score_units(
            graph,
            'producers',
            lambda member: unit_sums(wide(graph.parameter(member.param).detach()).abs(), member),
        )
        return reduce_layers(norms, 'mean')

    def nothing_worked(self) -> EasyPrunerError:
        """Return the error for a search whose every candidate measured as no number."""
        return EasyPrunerError(
            f'{type(self).__name__} found no candidate whose {self.trial.by} is a number; '
            'the weights or the data are damaged'
        )
