"""slim(): a network pruned in one line, without a config."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

from torch import Tensor, nn

from easypruner.base.checks import check_count
from easypruner.base.modules import copy_of, evaluating
from easypruner.base.randomness import fixed_seed
from easypruner.errors import ConfigError, EasyPrunerError
from easypruner.graph import ArchitectureRecord, ChannelGraph
from easypruner.graph.coupling.choice import Attention, Ignored
from easypruner.graph.cutting.record import record_of
from easypruner.graph.graph import prune, trace
from easypruner.graph.limits import Limits
from easypruner.graph.masks import Masks
from easypruner.graph.recording.tape import ExampleInputs
from easypruner.graph.recording.wrappers import check_values, traceable
from easypruner.graph.verify import verify as verify_cut
from easypruner.plugins import load_plugins
from easypruner.plugins.registry import BUDGETS, MASK_SOURCES, build, build_list
from easypruner.slimming.feeding import Batches, Feed, Forward, Loss, accuracy_by, opener
from easypruner.slimming.summary import SlimSummary, what_stays
from easypruner.strategies import Budget, Context, MaskSource, Scores
from easypruner.strategies.budgets.tightest import Tightest
from easypruner.strategies.measures.calibration import calibrate

_OWNER = 'slim'


@dataclass(frozen=True, repr=False)
class Slimmed:
    """What :func:`slim` returns. Printed, it is its summary.

    Attributes:
        model: the pruned network.
        record: from which :func:`easypruner.load_pruned` rebuilds its architecture, out of the
            network that was given; with ``record=`` out of the original.
        summary: what was asked for and what came of it.
    """

    model: nn.Module
    record: ArchitectureRecord
    summary: SlimSummary

    def __str__(self) -> str:
        return str(self.summary)

    def __repr__(self) -> str:
        kept, units = self.summary.units[::-1]
        return f'Slimmed({self.summary.model}: {kept} of {units} channels left)'


def slim(
    model: nn.Module,
    example_inputs: ExampleInputs,
    *,
    macs: float | None = None,
    params: float | None = None,
    source: str | Mapping[str, Any] | MaskSource = 'L1Norm',
    budget: Any = None,
    batches: Batches | None = None,
    forward: Forward | None = None,
    loss: Loss | nn.Module | None = None,
    evaluate: Callable[[nn.Module], float] | None = None,
    calibration_batches: int = 50,
    ignore: Ignored | Iterable[Ignored] = (),
    limits: Limits | Mapping[str, Any] | None = None,
    attention: Attention = 'width',
    seed: int = 0,
    verify: bool = True,
    record: ArchitectureRecord | str | os.PathLike[str] | None = None,
) -> Slimmed:
    """Prune a copy of a network; the network that is given stays as it is.

    The result is to be trained on: fine-tuning is the caller's. An optimizer is to be built for
    the parameters of the result. Plugins are loaded unless :func:`easypruner.plugins.load_plugins`
    was called before.

    Args:
        model: as for :func:`easypruner.trace`; of one that is wrapped, the network inside is
            copied.
        example_inputs: as for :func:`easypruner.trace`; random values let the check find more
            than zeros do.
        macs: how many multiply-adds may stay: up to 1 a share, above 1 the number itself.
        params: how many parameters may stay, likewise.
        source: chooses the channels: the name of a mask source, a dict of it and its arguments,
            or one that is built.
        budget: another limit, or a list of such, as dicts or built. All limits are kept to.
        batches: of training data, for sources that look at it and to estimate the statistics of
            batch norms anew: pairs of inputs and targets, or inputs alone. Inputs are what
            ``example_inputs`` are, so that ``(a, b)`` is no pair where these are two tensors; of
            a dict the same entries are taken. They are moved to the network's device. A data
            loader, a list, or a function that opens a pass.
        forward: runs a network on one batch and returns its outputs, for batches that are built
            in another way.
        loss: scalar, of a network and a batch; or a loss of torch, such as ``nn.MSELoss()``, of
            outputs and targets. By default the cross entropy, of targets that are class indices.
        evaluate: accuracy of a network, in percent, for sources that look at it and the summary.
            The network is in evaluation mode.
        calibration_batches: that batch norms are estimated on, if there are ``batches``; 0 leaves
            them.
        ignore: modules whose channels stay, as for :func:`easypruner.trace`.
        limits: how much of each group may go, likewise.
        attention: likewise.
        seed: for every random choice.
        verify: check on copies in double precision that the cut does what it should; takes a few
            forward passes.
        record: of the cuts that the network has undergone before, or the path of its file. The
            record of the result is then that of all cuts, and rebuilds it out of the original;
            without, as of ``slim(slim(net, ...).model, ...)``, it is that of this cut alone, and
            both are composed by ``first.then(second)``.

    Raises:
        ConfigError: an argument that is not understood, or a source that needs what was not given.
        EasyPrunerError: nothing of the network can be pruned.
        BudgetError: a limit that cannot be met; the message says what is feasible.
        RecordError: the record is not that of the network.
        TraceError: the forward pass of the network cannot be followed, or it has no values.

    >>> from torch import manual_seed, nn, ones
    >>> _ = manual_seed(0)
    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1))
    >>> slimmed = slim(net, ones(1, 3, 8, 8), macs=0.5)
    >>> slimmed.model[0].out_channels, net[0].out_channels
    (4, 8)
    >>> print(slimmed)  # doctest: +ELLIPSIS
    Sequential, pruned by L1Norm
              before   after    left
    MACs      8.93 k  4.46 k  50.0 %
    params       260     132  50.8 %
    channels       8       4  50.0 %
    asked for Macs 0.5, delivered 0.5
    verified: the outputs are off by ... at the most
    channels that cannot go: 4 at 2, an output of the model (output)
    """
    check_count(calibration_batches, 'calibration_batches', _OWNER, least=0)
    check_count(seed, 'seed', _OWNER, least=0)
    chosen = _source(source, [*_limits(macs=macs, params=params), *_listed(budget)])
    feed = Feed(example_inputs, forward, loss, _OWNER)
    accuracy = accuracy_by(evaluate, _OWNER)
    context = Context(
        seed=seed,
        batches=opener(batches, _OWNER),
        loss=feed.loss,
        evaluate=accuracy,
        forward=feed.forward,
    )
    original = traceable(model)
    check_values(original)
    earlier = None if record is None else record_of(record, 'record', _OWNER)
    if earlier is not None:
        earlier.check_cut(original)
    pruned = copy_of(original)
    graph = trace(pruned, example_inputs, ignore=ignore, limits=limits, attention=attention)
    _check_prunable(graph, macs)
    if calibration_batches or feed.needs_pairs:
        feed.check(batches)
    accuracy_before = None if accuracy is None else accuracy(pruned)
    with fixed_seed(seed):
        masks, level = _selected(chosen, graph, context)
    masks.check(graph)
    verification = verify_cut(pruned, masks, example_inputs, graph=graph) if verify else None
    summary = SlimSummary.of(graph, masks, chosen, verification, level)
    cut = prune(pruned, masks, graph=graph)
    if batches is not None and calibration_batches:
        with evaluating(pruned), fixed_seed(seed):
            calibrate(pruned, context.some_batches(calibration_batches, _OWNER), feed.forward)
    if accuracy is not None and accuracy_before is not None:
        summary = summary.with_accuracy(accuracy_before, accuracy(pruned))
    return Slimmed(pruned, cut if earlier is None else earlier.then(cut), summary)


def _selected(
    source: MaskSource, graph: ChannelGraph, context: Context
) -> tuple[Masks, float | None]:
    """Return the masks, and the score of all units where it is the same.

    Args:
        source: is changed.
        graph: of the network.
        context: for the source.
    """
    noted: dict[str, Tensor] = {}
    rank = source.ranking_scores

    def noting(graph: ChannelGraph, context: Context) -> Scores:
        scores = rank(graph, context)
        noted.update(scores)
        return scores

    # What a search ranks is not all that it goes by.
    if type(source).select is MaskSource.select:
        source.ranking_scores = noting  # type: ignore[method-assign]
    masks = source.select(graph, context)
    return masks, _level(noted)


def _level(scores: Mapping[str, Tensor]) -> float | None:
    values = {float(end) for score in scores.values() for end in (score.min(), score.max())}
    return values.pop() if len(values) == 1 else None


def _check_prunable(graph: ChannelGraph, macs: Any) -> None:
    """Raise EasyPrunerError if there is nothing to remove, or nothing that a share is of."""
    name = type(graph.model).__name__
    if not graph.groups:
        raise EasyPrunerError(
            f'nothing of this {name} can be pruned: {what_stays(graph) or "it has no weights"}; '
            'easypruner analyze tells more, as does graph.frozen of easypruner.trace'
        )
    if macs is not None and macs <= 1 and not graph.cost().macs:
        raise EasyPrunerError(
            f'macs={macs!r} of {_OWNER} is a share of the multiply-adds, but this {name} has none '
            'on the example inputs; give params or another budget'
        )


def _limits(**given: float | None) -> Iterator[dict[str, Any]]:
    """Yield the budget of each limit on a cost."""
    for argument, value in given.items():
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, Real) or not value >= 0:
            raise ConfigError(
                f'{argument}={value!r} of {_OWNER} is not understood; expected a share up to 1, '
                'or a number above'
            )
        number = int(value) if isinstance(value, Integral) else float(value)
        yield {'type': argument.capitalize(), 'keep' if number <= 1 else 'limit': number}


def _listed(budget: Any) -> list[Any]:
    if budget is None:
        return []
    return list(budget) if isinstance(budget, list | tuple) else [budget]


def _source(source: Any, limits: Sequence[Any]) -> MaskSource:
    """Return the mask source, with the budgets that were asked for."""
    if not MASK_SOURCES.classes:
        load_plugins()
    config = {'type': source} if isinstance(source, str) else source
    # Those that are given are not changed.
    chosen: MaskSource = copy.copy(build(MASK_SOURCES, config, path='source'))
    budgets: list[Budget] = build_list(BUDGETS, list(limits), path='budget')
    if budgets and chosen.budget is not None:
        raise ConfigError(
            f'the source {type(chosen).__name__} has a budget of its own; leave that out, or '
            'macs, params and budget'
        )
    if budgets:
        chosen.budget = budgets[0] if len(budgets) == 1 else Tightest(budgets)
    chosen.check()
    if chosen.budget is None and type(chosen).select is MaskSource.select:
        raise ConfigError(
            f'{_OWNER} is not told how much may stay; give macs=0.5, params=0.5, or '
            "budget=dict(type='Ratio', keep=0.5) or another"
        )
    return chosen
