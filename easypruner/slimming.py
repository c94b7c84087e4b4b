"""slim(): a network pruned in one line, without a config."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from easypruner.arguments import check_count
from easypruner.chance import same_chance
from easypruner.contracts import Budget, Context, MaskSource
from easypruner.errors import ConfigError
from easypruner.graph import ArchitectureRecord, prune, trace
from easypruner.graph.choice import Attention, Ignored
from easypruner.graph.tape import ExampleInputs, call_arguments, map_tensors
from easypruner.graph.verify import verify as verify_cut
from easypruner.graph.wrappers import traceable
from easypruner.limits import Limits
from easypruner.modes import evaluating
from easypruner.plugins import load_plugins
from easypruner.registry import BUDGETS, MASK_SOURCES, build, build_list
from easypruner.slim_summary import SlimSummary
from easypruner.toolkit.budgets import Tightest
from easypruner.toolkit.calibration import calibrate

Batches = Iterable[Any] | Callable[[], Iterable[Any]]
"""Something that can be gone through several times, or a function that opens a new pass."""

_OWNER = 'slim'


@dataclass(frozen=True)
class Slimmed:
    """What :func:`slim` returns. Printed, it is its summary.

    Attributes:
        model: the pruned network.
        record: from which :func:`easypruner.load_pruned` rebuilds its architecture.
        summary: what was asked for and what came of it.
    """

    model: nn.Module
    record: ArchitectureRecord
    summary: SlimSummary

    def __str__(self) -> str:
        return str(self.summary)


def slim(
    model: nn.Module,
    example_inputs: ExampleInputs,
    *,
    macs: float | None = None,
    params: float | None = None,
    source: str | Mapping[str, Any] | MaskSource = 'L1Norm',
    budget: Any = None,
    batches: Batches | None = None,
    loss: Callable[[nn.Module, Any], Tensor] | None = None,
    evaluate: Callable[[nn.Module], float] | None = None,
    calibration_batches: int = 50,
    ignore: Ignored | Iterable[Ignored] = (),
    limits: Limits | Mapping[str, Any] | None = None,
    attention: Attention = 'width',
    seed: int = 0,
    verify: bool = True,
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
            ``example_inputs`` are, and are moved to the network's device. A data loader, a list,
            or a function that opens a pass.
        loss: scalar, of a network and a batch; by default the cross entropy of what the network
            returns and targets that are class indices.
        evaluate: accuracy of a network, in percent, for sources that look at it and the summary.
        calibration_batches: that batch norms are estimated on, if there are ``batches``; 0 leaves
            them.
        ignore: modules whose channels stay, as for :func:`easypruner.trace`.
        limits: how much of each group may go, likewise.
        attention: likewise.
        seed: for every random choice.
        verify: check on copies in double precision that the cut does what it should; takes a few
            forward passes.

    Raises:
        ConfigError: an argument that is not understood, or a source that needs what was not given.
        BudgetError: a limit that cannot be met; the message says what is feasible.
        TraceError: the forward pass of the network cannot be followed.

    >>> from torch import nn, zeros
    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1))
    >>> slimmed = slim(net, zeros(1, 3, 8, 8), macs=0.5)
    >>> slimmed.model[0].out_channels, net[0].out_channels
    (4, 8)
    >>> print(slimmed)
    Sequential, pruned by L1Norm
              before   after    left
    MACs      8.93 k  4.46 k  50.0 %
    params       260     132  50.8 %
    channels       8       4  50.0 %
    asked for Macs 0.5, delivered 0.5
    verified: the outputs are off by 0e+00 at the most
    channels that cannot go: 4 at 2, an output of the model (output)
    """
    check_count(calibration_batches, 'calibration_batches', _OWNER, least=0)
    chosen = _source(source, [*_limits(macs=macs, params=params), *_listed(budget)])
    context = Context(
        seed=seed,
        batches=_opener(batches),
        loss=loss or _cross_entropy,
        evaluate=evaluate,
        forward=_forward,
    )
    pruned = copy.deepcopy(traceable(model))
    graph = trace(pruned, example_inputs, ignore=ignore, limits=limits, attention=attention)
    with same_chance(seed):
        masks = chosen.select(graph, context)
    masks.check(graph)
    verification = verify_cut(pruned, masks, example_inputs, graph=graph) if verify else None
    summary = SlimSummary.of(graph, masks, chosen, verification)
    accuracy_before = None if evaluate is None else float(evaluate(pruned))
    record = prune(pruned, masks, graph=graph)
    if batches is not None and calibration_batches:
        with evaluating(pruned), same_chance(seed):
            calibrate(pruned, context.some_batches(calibration_batches, _OWNER), _forward)
    if evaluate is not None and accuracy_before is not None:
        summary = summary.with_accuracy(accuracy_before, float(evaluate(pruned)))
    return Slimmed(pruned, record, summary)


def _limits(**given: float | None) -> Iterator[dict[str, Any]]:
    """Yield the budget of each limit on a cost."""
    for argument, value in given.items():
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
            raise ConfigError(
                f'{argument}={value!r} of {_OWNER} is not understood; expected a share up to 1, '
                'or a number above'
            )
        yield {'type': argument.capitalize(), 'keep' if value <= 1 else 'limit': value}


def _listed(budget: Any) -> list[Any]:
    if budget is None:
        return []
    return list(budget) if isinstance(budget, list | tuple) else [budget]


def _source(source: Any, limits: Sequence[Any]) -> MaskSource:
    """Return the mask source, with the budgets that were asked for."""
    if not MASK_SOURCES.module_dict:
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


def _opener(batches: Batches | None) -> Callable[[], Iterable[Any]] | None:
    """Return a function that opens a pass over batches."""
    if batches is None:
        return None
    if isinstance(batches, Iterator):
        raise ConfigError(
            f'batches of {_OWNER} is a {type(batches).__name__}, which can be gone through only '
            'once; give a data loader, a list, or a function that opens a new pass'
        )
    if isinstance(batches, Iterable):
        return lambda: batches
    if not callable(batches):
        raise ConfigError(
            f'batches={batches!r} of {_OWNER}; expected a data loader, a list of batches, or a '
            'function that opens a pass over them'
        )
    return batches


def _is_pair(batch: Any) -> bool:
    return isinstance(batch, tuple | list) and len(batch) == 2


@torch.no_grad()
def _forward(model: nn.Module, batch: Any) -> object:
    """Run a network on the inputs of a batch."""
    return _output(model, batch[0] if _is_pair(batch) else batch)


def _output(model: nn.Module, inputs: Any) -> Any:
    args, kwargs = call_arguments(_moved(inputs, model))
    return model(*args, **kwargs)


def _moved(value: Any, model: nn.Module) -> Any:
    parameter = next(model.parameters(), None)
    if parameter is None:
        return value
    return map_tensors(value, lambda tensor: tensor.to(parameter.device))


def _cross_entropy(model: nn.Module, batch: Any) -> Tensor:
    """Return the loss of a network on a pair of inputs and class indices."""
    if not _is_pair(batch):
        raise ConfigError(
            f'a batch of {_OWNER} is a {type(batch).__name__}, of which no loss is known; expected '
            'pairs of inputs and targets, or give loss=, a function of a network and a batch'
        )
    targets = _moved(batch[1], model)
    output = _output(model, batch[0])
    indices = isinstance(targets, Tensor) and targets.dtype == torch.int64
    if not indices or not isinstance(output, Tensor):
        raise ConfigError(
            f'by default the loss of {_OWNER} is the cross entropy of a tensor and class indices '
            f'(int64); the network returns a {type(output).__name__} and the targets are '
            f'{getattr(targets, "dtype", type(targets).__name__)}; give loss=, a function of a '
            'network and a batch'
        )
    return nn.functional.cross_entropy(output, targets)
