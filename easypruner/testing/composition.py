"""Composition: runs a component together with every source, budget and regularizer."""

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
from easypruner.plugins import load_plugins
from easypruner.plugins.registry import BUDGETS, MASK_SOURCES, REGULARIZERS, build
from easypruner.slimming import prune, trace, verify
from easypruner.strategies import Budget, Component, MaskSource, Progress, Regularizer, Schedule
from easypruner.strategies.strategy import Strategy
from easypruner.testing.checks import check_met
from easypruner.testing.contexts import tiny_context
from easypruner.testing.networks import TinyNetwork, network

_NETWORK = 'residual'
_UPDATES = 2
_LR = 0.05
WAYS = {'one-shot': 1, 'iterative': 2}
"""Name -> the number of cuts in which channels are removed."""


@dataclass(frozen=True)
class Combination:
    """Classes that have to work together.

    Attributes:
        source: a mask source.
        budget: the budget of the source; None for a source without a budget.
        regularizer: a regularizer that pushes before each cut; None for no regularizer.
        steps: the number of cuts in which the budget is reached.
    """

    source: type[MaskSource]
    budget: type[Budget] | None
    regularizer: type[Regularizer] | None
    steps: int

    def __str__(self) -> str:
        names = [c.__name__ for c in (self.source, self.budget, self.regularizer) if c is not None]
        return '-'.join([*names, str(self.steps)])


def combinations() -> Iterator[Combination]:
    """Yield all combinations of loaded components, one-shot and iterative."""
    sources, budgets, regularizers = _loaded()
    for source, regularizer, steps in itertools.product(sources, regularizers, WAYS.values()):
        yield from _with(source, budgets, regularizer, steps)


def pairs(component: type[Component]) -> Iterator[Combination]:
    """Yield combinations of a component with every partner, one-shot and iterative.

    Args:
        component: a source, budget or regularizer; it does not have to be loaded.
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


def _loaded() -> list[list[Any]]:
    """Return the loaded sources, budgets and regularizers."""
    load_plugins()
    return [list(kind.classes.values()) for kind in (MASK_SOURCES, BUDGETS, REGULARIZERS)]


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
        # A source without a budget always selects the same masks, which is not possible in steps.
        yield Combination(source, None, regularizer, steps)


def compose(component: type[Component]) -> None:
    """Run a source, budget or regularizer with every partner, one-shot and iterative.

    Args:
        component: the class. Its ``example`` method returns its arguments.

    Raises:
        AssertionError: a combination fails; see :func:`run`.
        EasyPrunerError: ``component`` is not a class, or a class of another kind.
    """
    if not inspect.isclass(component):
        advice = (
            f'component({component!r}, folder) returns the class of a plugin'
            if isinstance(component, str)
            else f'its class is {type(component).__name__}'
        )
        raise EasyPrunerError(f'compose got {component!r}, expected a class; {advice}')
    if not issubclass(component, MaskSource | Budget | Regularizer):
        raise EasyPrunerError(
            f'compose got {component.__name__}, expected a mask source, budget or regularizer; '
            'use check_stage or check_handler for a stage or layer handler'
        )
    for combination in pairs(component):
        _run_named(combination)


def _run_named(combination: Combination) -> None:
    try:
        run(combination)
    except Exception as error:
        raise AssertionError(f'{combination}: {type(error).__name__}: {error}') from error


def run(combination: Combination, of: TinyNetwork | None = None) -> None:
    """Run a combination: in each step select masks, push for a few updates, and cut.

    Each cut has to verify, the network has to run after it, and the last cut has to meet the
    budget.

    Args:
        combination: the classes to run.
        of: the network; None for the residual network.

    Raises:
        AssertionError: one of these conditions does not hold.
        EasyPrunerError: a component refuses the network.
    """
    with tempfile.TemporaryDirectory() as name:
        _run(combination, of or network(_NETWORK), Path(name))


def _run(combination: Combination, tiny: TinyNetwork, folder: Path) -> None:
    model = tiny.make()
    inputs = tiny.inputs()
    graph = trace(model, inputs)
    context = tiny_context(tiny, batches=2)
    source: MaskSource = _built(MASK_SOURCES, combination.source, graph, folder)
    regularizer: Regularizer | None = _built(REGULARIZERS, combination.regularizer, graph, folder)
    if regularizer is not None:
        regularizer.schedule(Schedule(_LR * _UPDATES, 0.9, _UPDATES))
    budget: Budget | None = _built(BUDGETS, combination.budget, graph, folder)
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
            assert bool(model(inputs).isfinite().all()), 'the outputs are not finite'


def _built(registry: Any, cls: type[Strategy] | None, graph: Any, folder: Path) -> Any:
    return cls and build(registry, {'type': cls, **cls.example(graph, folder)})
