"""Search: what mask sources have in common that try candidates on data."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from easypruner.base.distributed import is_main
from easypruner.errors import BudgetError, ConfigError, EasyPrunerError
from easypruner.graph import ChannelGraph
from easypruner.graph.masks import Masks
from easypruner.strategies.budgets.budget import Budget
from easypruner.strategies.context import Context
from easypruner.strategies.measures.units import score_units, unit_sums, wide
from easypruner.strategies.scores import Scores
from easypruner.strategies.sources.candidates import Trial, Trials, from_main
from easypruner.strategies.sources.scores import reduce_layers
from easypruner.strategies.sources.source import MaskSource

Rates = tuple[float, ...]
"""Of each group, in order, how much of it goes in proportion to the others."""


@dataclass(frozen=True)
class Widths:
    """Which units go first in each group, so that a candidate is no more than how many go.

    Attributes:
        shares: group -> ``(units,)``: the share of the group that is gone with each unit and all
            that go before it, in 0..1.
        most: the share of a group that goes before units of others must, in 0..1.
    """

    shares: Mapping[str, Tensor]
    most: float = 1.0

    @classmethod
    def of(cls, scores: Mapping[str, Tensor], most: float = 1.0) -> Widths:
        """Order the units of each group by scores ``(units,)``, higher = keep."""
        shares = {}
        for name, score in scores.items():
            share = torch.empty(score.numel(), dtype=torch.float64)
            share[score.argsort(stable=True)] = torch.arange(1, score.numel() + 1).double()
            shares[name] = share / score.numel()
        return cls(shares, most)

    def scores(self, rates: Rates) -> Scores:
        """Return scores by which a budget removes shares of the groups in proportion to ``rates``.

        A unit that is gone with a share q of its group scores q / rate: at a threshold t the
        group loses t * rate. Beyond :attr:`most` units score higher than all others.

        Args:
            rates: of the groups, in order, above 0.
        """
        pairs = list(zip(self.shares.items(), rates, strict=True))
        lift = max((1.0 / rate for _, rate in pairs), default=0.0)
        return Scores(
            {
                name: share / rate + lift * (share > self.most + 1e-9)
                for (name, share), rate in pairs
            }
        )

    def draw(self, generator: torch.Generator) -> Rates:
        """Return a rate for each group, uniform above 0 and up to :attr:`most`."""
        drawn = 1 - torch.rand(len(self.shares), generator=generator, dtype=torch.float64)
        return tuple((drawn * self.most).tolist())

    @property
    def even(self) -> Rates:
        """The same rate for each group."""
        return (self.most,) * len(self.shares)


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

    def dry_run(self, graph: ChannelGraph, context: Context) -> None:
        self.needed_budget()
        super().dry_run(graph, context)

    def trials(self, graph: ChannelGraph, context: Context) -> Trials:
        """Return what tries candidates of a graph, and remembers them."""
        return Trials(self.trial, graph, context)

    def ranks(self, graph: ChannelGraph, context: Context) -> Scores:
        """Return group -> ``(units,)``, higher = keep; they compare within a group only."""
        if self.source is not None:
            return self.source.ranking_scores(graph, context)
        norms = score_units(
            graph,
            'producers',
            lambda member: unit_sums(wide(graph.parameter(member.param).detach()).abs(), member),
        )
        return reduce_layers(norms, 'mean')

    def candidates_of(
        self, rates: Iterable[Rates], widths: Widths, graph: ChannelGraph, context: Context
    ) -> Iterator[tuple[Rates, Masks]]:
        """Yield rates, each with the masks that the budget makes of them.

        A measured budget makes others in each process: those of the main one count. Rates of
        which it makes none, as where a reading was too noisy, are passed over with a warning.

        Args:
            rates: of candidates; each process has to give the same.
            widths: of the groups.
            graph: of the model.
            context: for the budget.

        Raises:
            BudgetError: the last one, of a budget that makes none of any rates.
        """
        budget = self.needed_budget()
        made, failures = 0, []
        for each in rates:
            found: Masks | BudgetError
            try:
                found = budget(widths.scores(each), graph, context)
            except BudgetError as error:
                found = error
            found = from_main(found)
            if isinstance(found, BudgetError):
                failures.append(found)
                continue
            made += 1
            yield each, found
        if failures and not made:
            raise failures[-1]
        if failures:
            self.warn(
                f'passed over {len(failures)} of {made + len(failures)} candidates, of which its '
                f'budget made no masks: {failures[-1]}'
            )

    def warn_of_one(self, drawn: int) -> None:
        """Warn that all candidates are the same, where several were drawn."""
        if drawn > 1:
            self.warn(
                f'measured nothing: its budget {self.needed_budget().kind} makes the same masks of '
                f'all {drawn} candidates. One that ranks each group by itself always does; take '
                "one that ranks groups together, such as Macs or Ratio(scope='global'). Of such a "
                'budget it means that there is no other way to meet it, or that more candidates '
                'are to be drawn'
            )

    def warn(self, text: str) -> None:
        """Issue a warning, once however many processes there are."""
        if is_main():
            warnings.warn(f'{type(self).__name__} {text}', stacklevel=2)

    def nothing_worked(self) -> EasyPrunerError:
        """Return the error for a search whose every candidate measured as no number."""
        return EasyPrunerError(
            f'{type(self).__name__} found no candidate whose {self.trial.by} is a number; '
            'the weights or the data are damaged'
        )
