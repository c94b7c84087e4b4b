"""Composition: one component together with every partner that there is."""

from __future__ import annotations

import contextlib
import copy
import inspect
import itertools
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from easypruner.errors import EasyPrunerError
from easypruner.graph.verify import verify
from easypruner.plugins import load_plugins
from easypruner.plugins.registry import BUDGETS, MASK_SOURCES, REGULARIZERS, build
from easypruner.slimming import prune, trace
from easypruner.strategies import Budget, Component, MaskSource, Progress, Regularizer, Schedule
from easypruner.strategies.strategy import Strategy
from easypruner.testing.checks import check_met
from easypruner.testing.contexts import tiny_context
from easypruner.testing.networks import TinyNetwork, network

_NETWORK = 'residual'
_UPDATES = 2
_LR = 0.05
WAYS = {'one-shot': 1, 'iterative': 2}
"""Name -> in how many cuts the channels go."""


@dataclass(frozen=True)
class Combination:
    """Classes that are to work together.

    Attributes:
        source: a mask source.
        budget: of the source; None for a source that takes none.
        regularizer: pushes before each cut; None for none.
        steps: cuts in which the budget is reached.
    """

    source: type[MaskSource]
    budget: type[Budget] | None
    regularizer: type[Regularizer] | None
    steps: int

    def __str__(self) -> str:
        names = [c.__name__ for c in (self.source, self.budget, self.regularizer) if c is not None]
        return '-'.join([*names, str(self.steps)])


def combinations() -> Iterator[Combination]:
    """Yield every combination of the loaded sources, budgets and regularizers, in either way."""
    sources, budgets, regularizers = _loaded()
    for source, regularizer, steps in itertools.product(sources, regularizers, WAYS.values()):
        yield from _with(source, budgets, regularizer, steps)


def pairs(component: type[Component]) -> Iterator[Combination]:
    """Yield combinations that bring a component together with every partner, in either way.

    Args:
        component: a source, budget or regularizer; it need not be loaded.
    """
    sources, budgets, regularizers = _loaded()
    ranking = [source for source in sources if source.takes_budget()]
    for steps in WAYS.values():
        if issubclass(component, MaskSource):
            yield from _with(component, budgets, None, steps)
            for regularizer in regularizers:
                yield from _with(component, budgets[:1], regularizer, steps)
        elif issubclass(component, Budget):
            for source in ranking:
                yield Combination(source, component, None, steps)
            for regularizer in regularizers:
                yield Combination(ranking[0], component, regularizer, steps)
        elif issubclass(component, Regularizer):
            for source in sources:
                yield from _with(source, budgets[:1], component, steps)
            yield from _with(ranking[0], budgets[1:], component, steps)


def _loaded() -> tuple[list[Any], list[Any], list[Any]]:
    load_plugins()
    sources, budgets, regularizers = (
        list(registry.classes.values()) for registry in (MASK_SOURCES, BUDGETS, REGULARIZERS)
    )
    return sources, budgets, regularizers


def _with(
    source: type[MaskSource],
    budgets: Sequence[type[Budget]],
    regularizer: type[Regularizer] | None,
    steps: int,
) -> Iterator[Combination]:
    if source.takes_budget():
        for budget in budgets:
            yield Combination(source, budget, regularizer, steps)
    elif steps == 1:
        # Masks that are given cannot be a step of the way.
        yield Combination(source, None, regularizer, steps)


def compose(component: type[Component]) -> None:
    """Run a source, budget or regularizer with every partner that there is, one-shot and in steps.

    Args:
        component: the class; what its ``example`` returns are the arguments.

    Raises:
        AssertionError: in some combination something does not hold; see :func:`run`.
        EasyPrunerError: no class, or one of another kind.
    """
    if not inspect.isclass(component):
        advice = (
            f'component({component!r}, folder) finds that of a plugin'
            if isinstance(component, str)
            else f'its class is {type(component).__name__}'
        )
        raise EasyPrunerError(f'compose takes a class, it was given {component!r}; {advice}')
    if not issubclass(component, MaskSource | Budget | Regularizer):
        raise EasyPrunerError(
            f'{component.__name__} is no mask source, budget or regularizer; '
            'check_stage and check_handler are for stages and layer handlers'
        )
    for combination in pairs(component):
        _run_named(combination)


def _run_named(combination: Combination) -> None:
    try:
        run(combination)
    except Exception as error:
        raise AssertionError(f'{combination}: {type(error).__name__}: {error}') from error


def run(combination: Combination, of: TinyNetwork | None = None) -> None:
    """Select, push for a few optimizer updates, and cut, in as many steps as asked for.

    Each cut verifies, the network runs afterwards, and at the end the budget is met.

    Args:
        combination: of what.
        of: the network; by default the residual one.

    Raises:
        AssertionError: something of this does not hold.
        EasyPrunerError: a component refuses its part.
    """
    tiny = of or network(_NETWORK)
    with tempfile.TemporaryDirectory() as name:
        _run(combination, tiny, Path(name))


def _run(combination: Combination, tiny: TinyNetwork, folder: Path) -> None:
    model = tiny.make()
    inputs = tiny.inputs()
    graph = trace(model, inputs)
    context = tiny_context(tiny, batches=2)
    source: MaskSource = _built(MASK_SOURCES, combination.source, graph, folder)
    regularizer: Regularizer | None = None
    if combination.regularizer is not None:
        regularizer = _built(REGULARIZERS, combination.regularizer, graph, folder)
        regularizer.schedule(Schedule(_LR * _UPDATES, 0.9, _UPDATES))
    budget: Budget | None = None
    if combination.budget is not None:
        budget = _built(BUDGETS, combination.budget, graph, folder)
    reference = None if budget is None else budget.reference(graph)
    optimizer = torch.optim.SGD(model.parameters(), lr=_LR, momentum=0.9)
    for step in range(combination.steps):
        if budget is not None:
            done, share = step / combination.steps, (step + 1) / combination.steps
            source.budget = budget.partial(done, share, reference)
        masks = source.select(graph, context)
        masks.check(graph)
        model.train()
        with (
            contextlib.nullcontext() if regularizer is None else regularizer.watching(graph, masks)
        ):
            for update, batch in enumerate(context.some_batches(_UPDATES, 'the test')):
                progress = Progress(update, _UPDATES, None, _LR, optimizer)
                optimizer.zero_grad()
                loss = context.needed('loss', 'the test')(model, batch)
                if regularizer is None:
                    loss.backward()
                else:
                    torch.autograd.backward(regularizer.joined(loss, progress))
                    regularizer.add_gradient(graph, masks, progress)
                optimizer.step()
        model.eval()
        if source.budget is not None and step == combination.steps - 1:
            check_met(source.budget, masks, graph)
        error = verify(copy.deepcopy(model), masks, inputs).error
        assert error < 1e-5, f'verify finds an error of {error}'
        prune(model, masks, graph=graph, optimizer=optimizer)
        with torch.no_grad():
            assert bool(model(inputs).isfinite().all()), 'the outputs are no numbers'


def _built(registry: Any, cls: type[Strategy], graph: Any, folder: Path) -> Any:
    return build(registry, {'type': cls, **cls.example(graph, folder)})
