"""Search: the base class of mask sources that measure candidates on data."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from easypruner.base.checks import check_number
from easypruner.base.distributed import from_main, is_main
from easypruner.errors import BudgetError, ConfigError, EasyPrunerError
from easypruner.graph import ChannelGraph, Masks
from easypruner.strategies.budgets.budget import Budget
from easypruner.strategies.context import Context
from easypruner.strategies.measures.units import score_units, unit_sums, values_of, widen
from easypruner.strategies.scores import Scores
from easypruner.strategies.sources.candidates import Measurement, Measurements
from easypruner.strategies.sources.scores import reduce_layers
from easypruner.strategies.sources.source import MaskSource

Rates = tuple[float, ...]
"""For each group, in order: how much of it is removed, relative to the other groups."""


@dataclass(frozen=True)
class UnitOrder:
    """The order in which the units of each group are removed.

    With a fixed order, a candidate only says how many units of each group to remove.

    Attributes:
        shares: group -> ``(units,)``: the share of the group that is removed when this unit and
            all units before it are removed, from 0 to 1.
        max_removed: the share of a group beyond which units are removed only when all other groups
            have lost this share, from 0 to 1.
    """

    shares: Mapping[str, Tensor]
    max_removed: float = 1.0

    @classmethod
    def of(cls, scores: Mapping[str, Tensor], max_removed: float = 1.0) -> UnitOrder:
        """Order the units of each group by scores ``(units,)``, the lowest first."""
        shares = {
            name: (score.argsort(stable=True).argsort() + 1).double() / score.numel()
            for name, score in scores.items()
        }
        return cls(shares, max_removed)

    def scores(self, rates: Rates) -> Scores:
        """Return scores with which a budget removes shares of the groups in proportion to rates.

        A unit at the share q of its group scores q / rate. At a threshold t, a group therefore
        loses the share t * rate. Units beyond :attr:`max_removed` score higher than all others.

        Args:
            rates: the rate of each group, in order, above 0.
        """
        pairs = list(zip(self.shares.items(), rates, strict=True))
        lift = max((1.0 / rate for _, rate in pairs), default=0.0)
        return Scores(
            {
                name: share / rate + lift * (share > self.max_removed + 1e-9)
                for (name, share), rate in pairs
            }
        )

    def draw_rates(self, generator: torch.Generator) -> Rates:
        """Return a random rate for each group, uniform above 0 and up to :attr:`max_removed`."""
        drawn = 1 - torch.rand(len(self.shares), generator=generator, dtype=torch.float64)
        return tuple((drawn * self.max_removed).tolist())

    @property
    def equal_rates(self) -> Rates:
        """The same rate for each group."""
        return (self.max_removed,) * len(self.shares)


class Search(MaskSource):
    """Measures candidates on data. Another source orders the units of each group.

    All candidates are measured on the same batches, which stay in memory. In a run, each measured
    candidate is saved as a line of ``candidates.jsonl`` in the stage's folder, and an interrupted
    search continues after the last one. Use a folder for one data set only.

    Args:
        source: ranks the units of each group; it must not have a budget of its own. The default is
            the L1 norm of the weights that produce a unit's channels.
        by: ``'loss'`` on training batches, which leaves the validation data unused, or
            ``'accuracy'`` on the validation data.
        batches: the number of batches of training data for the loss.
        calibration_batches: the number of batches of training data on which the batch norms of a
            candidate are calibrated; 0 skips the calibration.
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
                f'source={type(source).__name__} of {name} does not rank units; expected a source '
                'that scores them, such as L1Norm'
            )
        if source is not None and source.budget is not None:
            raise ConfigError(
                f'the source of {name} only ranks units; give its budget to {name} instead'
            )
        self.source = source
        self.measurement = Measurement(by, batches, calibration_batches, name)

    def check(self) -> None:
        if self.source is not None:
            self.source.check()

    def dry_run(self, graph: ChannelGraph, context: Context) -> None:
        self.needed_budget()
        super().dry_run(graph, context)

    def measurements(self, graph: ChannelGraph, context: Context) -> Measurements:
        """Return an object that measures candidates of a graph and remembers the results."""
        return Measurements(self.measurement, graph, context)

    def unit_scores(self, graph: ChannelGraph, context: Context) -> Scores:
        """Return group -> ``(units,)``, higher = keep; comparable only within a group."""
        if self.source is not None:
            return self.source.ranking_scores(graph, context)
        norms = score_units(
            graph, 'producers', lambda m: unit_sums(widen(values_of(graph, m)).abs(), m)
        )
        return reduce_layers(norms, 'mean')

    def no_result(self) -> EasyPrunerError:
        """Return the error for a search in which no candidate could be measured."""
        return EasyPrunerError(
            f'{type(self).__name__} found no candidate with a finite {self.measurement.by}; '
            'the weights or the data are damaged'
        )


class RateSearch(Search):
    """A search for the removal rate of each group.

    A candidate is a rate for each group. The budget finds the factor by which all rates must be
    multiplied to meet its limit. The budget must therefore rank groups together. One that ranks
    each group by itself, such as ``Ratio`` with ``scope='layer'`` or ``OptimalThreshold``, makes
    the same masks for all candidates; they are then returned unmeasured, with a warning.

    Args:
        max_removed: the largest share of a group that is removed, unless the limit cannot be met
            otherwise.
        seed: the seed of all random choices; None for the seed of the run.
    """

    def __init__(
        self,
        budget: Budget | Sequence[Budget] | None,
        source: MaskSource | None,
        by: str,
        batches: int,
        calibration_batches: int,
        max_removed: float,
        seed: int | None,
    ) -> None:
        super().__init__(budget, source, by, batches, calibration_batches)
        name = type(self).__name__
        self.max_removed = check_number(max_removed, 'max_removed', name, above=0, most=1)
        self.seed = seed

    def unit_order(self, graph: ChannelGraph, context: Context) -> UnitOrder:
        """Return the order in which the units of each group are removed."""
        return UnitOrder.of(self.unit_scores(graph, context), self.max_removed)

    def candidates_of(
        self, rates: Iterable[Rates], order: UnitOrder, graph: ChannelGraph, context: Context
    ) -> Iterator[tuple[Rates, Masks]]:
        """Yield each vector of rates with the masks that the budget makes from it.

        A budget that measures time makes other masks in each process; those of the main process
        are used. A vector for which the budget fails, as with a noisy measurement, is skipped with
        a warning.

        Args:
            rates: the rates of the candidates; every process must pass the same.
            order: the order of the units.
            graph: the channel graph of the model.
            context: the context for the budget.

        Raises:
            BudgetError: the budget fails for all vectors; this is its last error.
        """
        budget = self.needed_budget()
        made, failures = 0, []
        for each in rates:
            found: Masks | BudgetError
            try:
                found = budget(order.scores(each), graph, context)
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
            self._warn(
                f'skipped {len(failures)} of {made + len(failures)} candidates, because its budget '
                f'made no masks for them: {failures[-1]}'
            )

    def warn_of_one(self, drawn: int) -> None:
        """Warn that all candidates are the same, if several were drawn."""
        if drawn > 1:
            self._warn(
                f'measured nothing: its budget {self.needed_budget().kind} makes the same masks '
                f'for all {drawn} candidates. A budget that ranks each group by itself always '
                "does; use one that ranks groups together, such as Macs or Ratio(scope='global'). "
                'If the budget does so already, its limit can be met in one way only, or more '
                'candidates are needed'
            )

    def _warn(self, text: str) -> None:
        """Issue a warning in the main process."""
        if is_main():
            warnings.warn(f'{type(self).__name__} {text}', stacklevel=2)
