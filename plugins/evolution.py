"""Mask source: widths found by evolution (as in MetaPruning; Liu et al., arXiv 1903.10258)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from easypruner import Budget, Component, Context, Masks, MaskSource, hookimpl
from easypruner.base.checks import check_count, check_number, check_share
from easypruner.graph import ChannelGraph
from easypruner.strategies.sources.candidates import masks_digest
from easypruner.strategies.sources.search import Rates, Search, Widths


class Evolution(Search):
    """Breeds vectors of removal rates, one rate a group (algorithm 1 of MetaPruning).

    The first generation is drawn at random, one of it with the same rate everywhere. Of each later
    one, half are mutations of the best ``parents`` so far, each rate drawn anew with probability
    ``mutation`` and one of them in any case; half are crossings, each rate from either of two
    parents. The budget finds by what one factor all rates of a vector must be multiplied to meet
    its limit. So it has to rank groups together: one that looks at each by itself, such as
    ``Ratio`` by layer or by pattern or ``OptimalThreshold``, makes the same masks of all vectors,
    and they are taken unmeasured, with a warning. Each candidate is really cut on a copy, its
    batch norms are adapted, and it is measured; equal ones once. There is no network that predicts
    weights, as in the paper: candidates have those of the trained network.

    All candidates meet the same batches, which stay in memory. Where there is a folder for it,
    each measured candidate is a line of ``candidates.jsonl`` there, and a search that was stopped
    goes on behind the last one. A folder belongs to one data set.

    Args:
        budget: how much may stay.
        source: ranks the units within each group, without a budget of its own; by default the L1
            norm of the weights that make a unit's channels.
        population: candidates of a generation.
        generations: with the first.
        parents: how many of the best so far are bred from.
        mutation: the probability that a rate is drawn anew, in 0..1.
        max_removed: the largest share of a group that goes, unless the limit cannot be met so.
        batches: of training data for the loss.
        calibration_batches: of training data on which batch norms are adapted; 0 leaves them
            alone. The paper's released code takes 100.
        by: ``'loss'`` on training batches, so that the validation data stay unseen, or
            ``'accuracy'`` on the validation data.
        seed: of all that is drawn; by default the run's.
    """

    def __init__(
        self,
        budget: Budget | Sequence[Budget] | None = None,
        source: MaskSource | None = None,
        population: int = 50,
        generations: int = 20,
        parents: int = 10,
        mutation: float = 0.1,
        max_removed: float = 0.7,
        batches: int = 10,
        calibration_batches: int = 50,
        by: str = 'loss',
        seed: int | None = None,
    ) -> None:
        super().__init__(budget, source, by, batches, calibration_batches)
        self.population = check_count(population, 'population', 'Evolution')
        self.generations = check_count(generations, 'generations', 'Evolution')
        self.parents = check_count(parents, 'parents', 'Evolution')
        check_share(mutation, 'mutation', 'Evolution')
        self.mutation = mutation
        self.max_removed = check_number(max_removed, 'max_removed', 'Evolution', above=0, most=1)
        self.seed = seed

    def select(self, graph: ChannelGraph, context: Context) -> Masks:
        """Return the best candidate of all generations; of equal ones the first."""
        widths = Widths.of(self.ranks(graph, context), self.max_removed)
        trials = self.trials(graph, context)
        tried: dict[str, _Tried] = {}
        waiting: list[_Tried] = []
        number = self.population * self.generations
        vectors = context.track(self._vectors(widths, tried, context), number)
        for rates, masks in self.candidates_of(vectors, widths, graph, context):
            key = masks_digest(masks)
            if key in tried:
                continue
            tried[key] = _Tried(rates, masks)
            waiting.append(tried[key])
            # One alone is the best, whatever it is worth.
            if len(tried) > 1:
                for one in waiting:
                    one.fitness = trials.fitness(one.masks)
                waiting.clear()
        best = _best(tried.values(), 1)[0]
        if len(tried) == 1:
            self.warn_of_one(number)
        elif best.fitness == -math.inf:
            raise self.nothing_worked()
        return best.masks

    def _vectors(
        self, widths: Widths, tried: dict[str, _Tried], context: Context
    ) -> Iterator[Rates]:
        """Yield the vectors of each generation; ``tried`` has all of those before it."""
        seed = context.seed if self.seed is None else self.seed
        generator = torch.Generator().manual_seed(seed)
        yield widths.even
        for _ in range(self.population - 1):
            yield widths.draw(generator)
        for _ in range(self.generations - 1 if tried else 0):
            parents = [one.rates for one in _best(tried.values(), self.parents)]
            for number in range(self.population):
                first, second = (parents[_below(len(parents), generator)] for _ in range(2))
                if number % 2:
                    yield _crossed(first, second, generator)
                else:
                    yield self._mutated(first, widths.draw(generator), generator)

    def _mutated(self, rates: Rates, fresh: Rates, generator: torch.Generator) -> Rates:
        changes = torch.rand(len(rates), generator=generator) < self.mutation
        if rates:
            changes[_below(len(rates), generator)] = True
        return _picked(changes, fresh, rates)

    @classmethod
    def example(cls, graph: ChannelGraph, folder: Path) -> Mapping[str, Any]:
        return {'population': 3, 'generations': 2, 'parents': 2, 'batches': 1}


@dataclass
class _Tried:
    rates: Rates
    masks: Masks
    fitness: float = -math.inf


def _best(tried: Iterable[_Tried], count: int) -> list[_Tried]:
    return sorted(tried, key=lambda one: -one.fitness)[:count]


def _below(limit: int, generator: torch.Generator) -> int:
    return int(torch.randint(limit, (), generator=generator))


def _crossed(first: Rates, second: Rates, generator: torch.Generator) -> Rates:
    return _picked(torch.rand(len(first), generator=generator) < 0.5, first, second)


def _picked(which: torch.Tensor, yes: Rates, no: Rates) -> Rates:
    return tuple(y if pick else n for pick, y, n in zip(which.tolist(), yes, no, strict=True))


@hookimpl
def easypruner_components() -> Iterable[type[Component]]:
    return [Evolution]
