"""Mask source: widths found by evolution (as in MetaPruning; Liu et al., arXiv 1903.10258)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from easypruner import Budget, Context, Masks, MaskSource, hookimpl
from easypruner.base.checks import check_count, check_share
from easypruner.graph import ChannelGraph
from easypruner.strategies.sources.candidates import masks_digest
from easypruner.strategies.sources.search import Rates, RateSearch, UnitOrder


class Evolution(RateSearch):
    """Breeds vectors of removal rates, one rate for each group (algorithm 1 of MetaPruning).

    The first generation is random; one of its vectors has the same rate for all groups. Half of
    each later generation are mutations of the best ``parents`` so far: each rate is drawn again
    with probability ``mutation``, and at least one always is. The other half are crossings: each
    rate comes from either of two parents. The budget finds the factor by which all rates of a
    vector must be multiplied to meet its limit. It must therefore rank groups together, as ``Macs``
    does. Each distinct candidate is cut on a copy, its batch norms are calibrated, and its loss or
    accuracy is measured.

    Unlike in the paper, no network predicts the weights of a candidate: they are the remaining
    weights of the trained network.

    All candidates are measured on the same batches, which stay in memory. In a run, each measured
    candidate is saved as a line of ``candidates.jsonl`` in the stage's folder, and an interrupted
    search continues after the last one. Use a folder for one data set only.

    Use when:
        The widths of the layers matter, and more time is available than for ``EagleEye``.

    Fails when:
        The budget ranks each group by itself, such as ``Ratio`` with ``scope='layer'`` or
        ``OptimalThreshold``: then all candidates have the same masks, and the search returns them
        unmeasured, with a warning. The loss right after a strong cut does not predict the accuracy
        after training.

    Values:
        The defaults measure up to 1000 candidates. Reduce ``population`` and ``generations`` for a
        quick search. The released code of the paper uses 100 calibration batches.

    Args:
        population: the number of candidates of a generation.
        generations: the number of generations, with the first.
        parents: the number of best candidates so far that are bred from.
        mutation: the probability that a rate is drawn again, from 0 to 1.
    """

    example_arguments: ClassVar = {'population': 3, 'generations': 2, 'parents': 2, 'batches': 1}

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
        super().__init__(budget, source, by, batches, calibration_batches, max_removed, seed)
        self.population = check_count(population, 'population', 'Evolution')
        self.generations = check_count(generations, 'generations', 'Evolution')
        self.parents = check_count(parents, 'parents', 'Evolution')
        self.mutation = check_share(mutation, 'mutation', 'Evolution')

    def select(self, graph: ChannelGraph, context: Context) -> Masks:
        """Return the best candidate of all generations; the first of equal ones."""
        order = self.unit_order(graph, context)
        measurements = self.measurements(graph, context)
        known: dict[str, _Candidate] = {}
        unmeasured: list[_Candidate] = []
        number = self.population * self.generations
        vectors = context.track(self._vectors(order, known, context), number)
        for rates, masks in self.candidates_of(vectors, order, graph, context):
            key = masks_digest(masks)
            if key in known:
                continue
            known[key] = _Candidate(rates, masks)
            unmeasured.append(known[key])
            # A single candidate is the best without a measurement.
            if len(known) > 1:
                for candidate in unmeasured:
                    candidate.fitness = measurements.fitness(candidate.masks)
                unmeasured.clear()
        best = max(known.values(), key=lambda candidate: candidate.fitness)
        if len(known) == 1:
            self.warn_of_one(number)
        elif best.fitness == -math.inf:
            raise self.no_result()
        return best.masks

    def _vectors(
        self, order: UnitOrder, known: Mapping[str, _Candidate], context: Context
    ) -> Iterator[Rates]:
        """Yield the vectors of each generation; ``known`` has the candidates before it."""
        generator = context.generator(self.seed)
        yield order.equal_rates
        for _ in range(self.population - 1):
            yield order.draw_rates(generator)
        for _ in range(self.generations - 1 if known else 0):
            best = sorted(known.values(), key=lambda candidate: -candidate.fitness)
            parents = [candidate.rates for candidate in best[: self.parents]]
            for number in range(self.population):
                first, second = (parents[_below(len(parents), generator)] for _ in range(2))
                if number % 2:
                    yield _merged(torch.rand(len(first), generator=generator) < 0.5, first, second)
                else:
                    yield self._mutated(first, order.draw_rates(generator), generator)

    def _mutated(self, rates: Rates, fresh: Rates, generator: torch.Generator) -> Rates:
        changes = torch.rand(len(rates), generator=generator) < self.mutation
        if rates:
            changes[_below(len(rates), generator)] = True
        return _merged(changes, fresh, rates)


@dataclass
class _Candidate:
    rates: Rates
    masks: Masks
    fitness: float = -math.inf


def _below(limit: int, generator: torch.Generator) -> int:
    return int(torch.randint(limit, (), generator=generator))


def _merged(mask: torch.Tensor, true: Rates, false: Rates) -> Rates:
    """Return the rates of ``true`` where the mask is True, and those of ``false`` elsewhere."""
    return tuple(t if m else f for m, t, f in zip(mask.tolist(), true, false, strict=True))


easypruner_components = hookimpl(lambda: [Evolution])
