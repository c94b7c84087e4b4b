"""slim(): prunes a network in one line, without a config."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import Any

from torch import nn

from easypruner.base.checks import check_count, refuse
from easypruner.base.modules import copy_of, evaluating
from easypruner.base.randomness import fixed_seed
from easypruner.errors import ConfigError, EasyPrunerError
from easypruner.graph import ArchitectureRecord, ChannelGraph, Limits
from easypruner.graph.coupling.choice import Attention, Grouped, Ignored, Uniform
from easypruner.graph.cutting.record import record_of
from easypruner.graph.recording.outputs import Outputs
from easypruner.graph.recording.tape import ExampleInputs
from easypruner.graph.recording.wrappers import check_values, find_traceable
from easypruner.plugins.registry import BUDGETS, MASK_SOURCES, build, build_list
from easypruner.plugins.use import ensure_loaded
from easypruner.runtimes.widths import AnyRuntime
from easypruner.slimming.checks import Batches, make_accuracy, make_opener
from easypruner.slimming.detectors import evaluating_like, with_network
from easypruner.slimming.feeding import Feed, Forward, Loss
from easypruner.slimming.push_summary import PushSummary
from easypruner.slimming.selection import Selection
from easypruner.slimming.summary import SlimSummary, frozen_reasons
from easypruner.slimming.target_comparison import TargetComparison
from easypruner.slimming.training import Train, Training
from easypruner.slimming.with_plugins import prune, trace
from easypruner.slimming.with_plugins import verify as verify_cut
from easypruner.strategies import Budget, Context, MaskSource, Regularizer
from easypruner.strategies.budgets.costs import Tightest
from easypruner.strategies.measures.calibration import calibrate

_OWNER = 'slim'


@dataclass(frozen=True, repr=False)
class Slimmed:
    """The result of :func:`slim`. ``print()`` shows its summary.

    Attributes:
        model: the pruned network.
        record: the architecture record, with which :func:`easypruner.load_pruned` rebuilds the
            pruned network from the network that :func:`slim` got. If :func:`slim` got an earlier
            record, the pruned network is rebuilt from the original.
        summary: the limits, the result, and the channels that were kept.
        push: how far the regularizer came before the cut; None without a regularizer.
    """

    model: nn.Module
    record: ArchitectureRecord
    summary: SlimSummary
    push: PushSummary | None = None

    def __str__(self) -> str:
        return str(self.summary) if self.push is None else f'{self.summary}\n{self.push}'

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
    regularizer: str | Mapping[str, Any] | Regularizer | None = None,
    train: Train | None = None,
    batches: Batches | None = None,
    forward: Forward | None = None,
    loss: Loss | nn.Module | None = None,
    evaluate: Callable[[nn.Module], float] | None = None,
    calibration_batches: int = 50,
    ignore: Ignored | Iterable[Ignored] = (),
    limits: Limits | Mapping[str, Any] | None = None,
    attention: Attention = 'width',
    grouped: Grouped | None = None,
    uniform: Uniform = False,
    outputs: Outputs | None = None,
    target: Any = None,
    seed: int = 0,
    verify: bool = True,
    record: ArchitectureRecord | str | os.PathLike[str] | None = None,
) -> Slimmed:
    """Prune a copy of a network. The network itself does not change.

    The caller has to fine-tune the result, with a new optimizer for its parameters. The function
    loads plugins unless :func:`easypruner.plugins.load_plugins` was called before.

    Args:
        model: as for :func:`easypruner.trace`. If the model is wrapped, for example by
            DistributedDataParallel, the network inside the wrapper is copied. For a ``YOLO`` of
            Ultralytics, the result is one as well, whose ``train()`` keeps the widths.
        example_inputs: as for :func:`easypruner.trace`. With random values, the verification finds
            more errors than with zeros.
        macs: the limit on multiply-adds: a number up to 1 is a share of the network's, a number
            above 1 is absolute.
        params: the limit on parameters, in the same form.
        source: the mask source that chooses the channels: a name, a dict with its arguments, or an
            object.
        budget: another limit or a list of limits, as dicts or objects. All limits are met.
        regularizer: a regularizer that pushes channels to zero before the cut: a name, a dict with
            its arguments, or an object. If it pushes what masks remove, as ``MaskSparsity``, the
            channels are chosen before the training, else after it, as for ``GlobalSparsity``.
        train: a function ``train(model, regularize)`` that trains the copy. It calls
            ``regularize(optimizer, updates=..., reach=5)`` before its first update:
            :func:`easypruner.regularize` with network, graph, masks and regularizer filled in.
        batches: batches of training data, for sources that use data and for the statistics of batch
            norms: a data loader, a list, or a function that opens a pass. A batch is a pair of
            inputs and targets, or inputs alone. Inputs have the structure of ``example_inputs``:
            if these are two tensors, ``(a, b)`` is not a pair. If they are a dict, the same keys
            are used. Tensors are moved to the device of the network.
        forward: a function that runs a network on a batch and returns the outputs, for batches of
            another structure.
        loss: a function of a network and a batch that returns a scalar; or a loss of torch, such as
            ``nn.MSELoss()``, which is a function of outputs and targets. The default is the cross
            entropy, for targets that are class indices.
        evaluate: a function that returns the accuracy of a network in percent, for the summary and
            for sources that use it. It gets the network in evaluation mode.
        calibration_batches: the number of ``batches`` on which the statistics of batch norms are
            estimated again after the cut; 0 to keep the old statistics.
        ignore: modules whose channels are kept, as for :func:`easypruner.trace`.
        limits: how much of each group may be removed, as for :func:`easypruner.trace`.
        attention: what is removed from attention, as for :func:`easypruner.trace`.
        grouped: what is removed from grouped convolutions, as for :func:`easypruner.trace`.
        uniform: whether layers of a kind keep the same width, as for :func:`easypruner.trace`.
        outputs: the outputs that count, as for :func:`easypruner.trace`.
        target: the runtime in which the network will run, as for :func:`easypruner.trace`. The
            summary then has the time of the pruned network in it, beside the unpruned one.
        seed: the seed for all random choices.
        verify: whether to compare the pruned with the full network, on copies in double precision.
            This takes a few forward passes.
        record: the record of earlier cuts of the network, or the path of its file. The record of
            the result then includes these cuts. Without it, as in
            ``slim(slim(net, ...).model, ...)``, the record includes only this cut, and
            ``first.then(second)`` combines two records.

    Raises:
        ConfigError: an argument has a wrong value, or the source needs an argument that is missing.
        EasyPrunerError: the network has no channels that can be pruned.
        BudgetError: a limit cannot be met; the message states the feasible range.
        RecordError: the record is not that of the network.
        TraceError: the forward pass of the network cannot be recorded, or its weights have no
            values.

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
    budget Macs: asked 0.5, delivered 0.5
    verified: the largest error of an output is ...
    frozen channels: 4 at 2, an output of the model (output)
    """
    check_count(calibration_batches, 'calibration_batches', _OWNER, least=0)
    check_count(seed, 'seed', _OWNER, least=0)
    training = Training.of(regularizer, train)
    chosen = _source(source, [*_limits(macs=macs, params=params), *_listed(budget)])
    feed = Feed(example_inputs, forward, loss, _OWNER)
    accuracy = make_accuracy(evaluating_like(model, evaluate), _OWNER)
    context = Context(
        seed=seed,
        batches=make_opener(batches, _OWNER),
        loss=feed.loss,
        evaluate=accuracy,
        forward=feed.forward,
    )
    original = find_traceable(model)
    check_values(original, _OWNER)
    earlier = None if record is None else record_of(record, 'record', _OWNER)
    if earlier is not None:
        earlier.check_cut(original)
    pruned = copy_of(original)
    graph = trace(
        pruned,
        example_inputs,
        ignore=ignore,
        limits=limits,
        attention=attention,
        grouped=grouped,
        uniform=uniform,
        outputs=outputs,
        target=AnyRuntime(implied=True) if target is None else target,
    )
    _check_prunable(graph, macs)
    if calibration_batches or feed.needs_pairs:
        feed.check(batches)
    accuracy_before = None if accuracy is None else accuracy(pruned)
    selection, push = _pushed(training, chosen, graph, context)
    masks = selection.masks
    verification = verify_cut(pruned, masks, example_inputs, graph=graph) if verify else None
    summary = SlimSummary.of(graph, masks, chosen, verification, selection.level)
    comparison = TargetComparison.before(graph, selection, chosen, context)
    cut = prune(pruned, masks, graph=graph)
    if batches is not None and calibration_batches:
        with evaluating(pruned), fixed_seed(seed):
            calibrate(pruned, context.some_batches(calibration_batches, _OWNER), feed.forward)
    if accuracy is not None and accuracy_before is not None:
        summary = summary.with_accuracy(accuracy_before, accuracy(pruned))
    if comparison is not None:
        summary = replace(summary, target=comparison.summary(example_inputs, original, pruned))
    result = with_network(model, pruned)
    return Slimmed(result, cut if earlier is None else earlier.then(cut), summary, push)


def _pushed(
    training: Training | None, source: MaskSource, graph: ChannelGraph, context: Context
) -> tuple[Selection, PushSummary | None]:
    """Select masks, and train before or afterwards; see :meth:`Selection.of`."""
    push = None
    if training is not None and not training.needs_masks(graph):
        push = training.run(graph, None)
        training = None
    with fixed_seed(context.seed):
        selection = Selection.of(source, graph, context)
    graph.check_cut(selection.masks)
    if training is not None:
        push = training.run(graph, selection.masks)
    return selection, push


def _check_prunable(graph: ChannelGraph, macs: Any) -> None:
    """Raise EasyPrunerError if no channel can be pruned, or if a limit is a share of nothing."""
    name = type(graph.model).__name__
    if not graph.groups:
        raise EasyPrunerError(
            f'no channel of this {name} can be pruned: '
            f'{frozen_reasons(graph) or "it has no weights"}; easypruner analyze and graph.frozen '
            'of easypruner.trace list all reasons'
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
            refuse(value, argument, _OWNER, 'a share from 0 to 1, or a number above 1')
        number = int(value) if isinstance(value, Integral) else float(value)
        yield {'type': argument.capitalize(), 'keep' if number <= 1 else 'limit': number}


def _listed(budget: Any) -> list[Any]:
    if budget is None:
        return []
    return list(budget) if isinstance(budget, list | tuple) else [budget]


def _source(source: Any, limits: Sequence[Any]) -> MaskSource:
    """Return a copy of the mask source, with the budgets of the limits."""
    ensure_loaded()
    config = {'type': source} if isinstance(source, str) else source
    # The caller's source is not changed.
    chosen: MaskSource = copy.copy(build(MASK_SOURCES, config, path='source'))
    budgets: list[Budget] = build_list(BUDGETS, list(limits), path='budget')
    if budgets and chosen.budget is not None:
        raise ConfigError(
            f'the source {type(chosen).__name__} has its own budget; remove that one, or macs, '
            f'params and budget of {_OWNER}'
        )
    if budgets:
        chosen.budget = budgets[0] if len(budgets) == 1 else Tightest(budgets)
    chosen.check()
    if chosen.budget is None and type(chosen).select is MaskSource.select:
        raise ConfigError(
            f'{_OWNER} has no limit; give macs=0.5, params=0.5, or a budget such as '
            "budget=dict(type='Ratio', keep=0.5)"
        )
    return chosen
