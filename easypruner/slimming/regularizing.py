"""regularize(): a regularizer pushes in a training loop of one's own."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from easypruner.base.checks import check_count
from easypruner.base.describe import describe
from easypruner.errors import ConfigError
from easypruner.graph import ChannelGraph, Masks
from easypruner.graph.recording.wrappers import find_traceable
from easypruner.plugins.registry import REGULARIZERS, build
from easypruner.plugins.use import ensure_loaded
from easypruner.slimming.pusher import Pusher
from easypruner.strategies import Regularizer, Schedule
from easypruner.strategies.regularizers.push import Push
from easypruner.strategies.regularizers.rates import inner_optimizer, predicted_rates, schedule_of
from easypruner.strategies.regularizers.reach import check_lazy

_OWNER = 'regularize'
_SHOWN = 3


def regularize(
    model: nn.Module,
    optimizer: Optimizer,
    graph: ChannelGraph,
    regularizer: str | Mapping[str, Any] | Regularizer,
    *,
    updates: int,
    masks: Mapping[str, Tensor] | None = None,
    strength: float | Mapping[str, float] | None = None,
    reach: float | None = None,
    until: float | None = None,
    scheduler: Any = None,
    scheduler_every: int = 1,
    every: int = 1,
    state: Mapping[str, Any] | None = None,
) -> Pusher:
    """Let a regularizer push channels to zero in a training loop of your own.

    The push enters by itself at each ``optimizer.step()``, exactly once per update, whatever the
    gradient accumulation, mixed precision, clipping, compilation or number of processes. The loss
    stays as it is; only regularizers of forward passes need ``pusher.loss(loss)``. If the strength
    cannot bring to zero what must go, a ``PushWarning`` says which one could. The function loads
    plugins unless :func:`easypruner.plugins.load_plugins` was called before.

    Args:
        model: the network, which may be wrapped (DistributedDataParallel, ``torch.compile``).
        optimizer: the optimizer that trains it, which may be wrapped (Accelerate).
        graph: the channel graph of the network, of :func:`easypruner.trace`. It may be that of a
            copy.
        regularizer: a name, a dict with arguments, or an object.
        updates: the number of updates that the loop will make, ``len(loader) * epochs``, divided by
            the number of accumulated batches.
        masks: group -> bool tensor, True = keep; for regularizers of the channels that masks
            remove.
        strength: the factor of the penalty.
        reach: chooses the strength with which the penalty alone moves a scale by this distance.
        until: raises the strength until what must go is below this value.
        scheduler: the learning rates to come, for ``reach``: a scheduler of torch or timm, which
            is followed on a copy; or a function of an update's number that returns the factor of
            the current learning rates. Without it, the current learning rates count.
        scheduler_every: the number of updates from one ``scheduler.step()`` to the next:
            ``len(loader)`` for a scheduler that is stepped once an epoch.
        every: the number of updates between two pushes, each of which is stronger by this number.
        state: the ``state_dict()`` of the pusher of an interrupted training, if its optimizer and
            scheduler were loaded before. Otherwise, ``load_state_dict()`` can be used as well.

    Returns:
        the pusher; ``print(pusher.summary())`` shows how far the removed scales came down.

    Raises:
        ConfigError: an argument has a wrong value, the regularizer needs masks or a strength, or
            the optimizer does not train what is pushed.
        MaskError: the masks do not fit the graph.
        TraceError: the graph belongs to another architecture than the model.

    >>> import easypruner, torch
    >>> _ = torch.manual_seed(0)
    >>> net = torch.nn.Sequential(
    ...     torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4), torch.nn.Conv2d(4, 2, 1)
    ... )
    >>> graph = easypruner.trace(net, torch.ones(1, 3, 8, 8))
    >>> optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    >>> masks = {'0': torch.tensor([True, True, False, False])}
    >>> pusher = regularize(
    ...     net, optimizer, graph, 'MaskSparsity', masks=masks, until=1e-3, updates=80
    ... )
    >>> for _ in range(80):
    ...     optimizer.zero_grad()
    ...     net(torch.randn(4, 3, 8, 8)).square().mean().backward()
    ...     optimizer.step()
    >>> net[1].weight[2:].tolist()
    [0.0, 0.0]
    """
    network = find_traceable(model)
    inner = _checked_optimizer(optimizer)
    if not isinstance(graph, ChannelGraph):
        raise ConfigError(
            f'graph={describe(graph)} of {_OWNER}; expected a channel graph: '
            'easypruner.trace(model, example_inputs)'
        )
    for value, name in (
        (updates, 'updates'),
        (scheduler_every, 'scheduler_every'),
        (every, 'every'),
    ):
        check_count(value, name, _OWNER)
    given = {'strength': strength, 'reach': reach, 'until': until}
    chosen = build_regularizer(regularizer, given, _OWNER)
    if every > 1:
        check_lazy(chosen, 'every', _OWNER)
    graph = graph if graph.model is network else graph.on(network)
    known = _checked_masks(masks, graph)
    # The strength of an interrupted training does not depend on the rates that are left.
    follows = scheduler if state is None else None
    rates = predicted_rates(inner, updates, follows, scheduler_every)
    schedule = schedule_of(inner, rates, network)
    _check_trained(chosen, graph, known, schedule)
    return Pusher(Push(chosen, graph, known, schedule, every=every), inner, state)


def _checked_optimizer(optimizer: Any) -> Optimizer:
    inner = inner_optimizer(optimizer)
    if not isinstance(inner, Optimizer):
        raise ConfigError(
            f'optimizer={describe(optimizer)} of {_OWNER}; expected an optimizer of torch, such as '
            'torch.optim.SGD(model.parameters(), lr=0.1)'
        )
    return inner


def _checked_masks(masks: Any, graph: ChannelGraph) -> Masks | None:
    if masks is None:
        return None
    if not isinstance(masks, Mapping):
        raise ConfigError(
            f'masks={describe(masks)} of {_OWNER}; expected a dict of group -> bool tensor, as '
            'source.select(graph, easypruner.Context()) returns it'
        )
    known = masks if isinstance(masks, Masks) else Masks(masks)
    known.check(graph)
    return known


def build_regularizer(regularizer: Any, strengths: Mapping[str, Any], owner: str) -> Regularizer:
    """Return a regularizer from a name, a dict or an object.

    Args:
        regularizer: the name, dict or object.
        strengths: ``strength``, and the forms ``reach`` and ``until`` of it; None for those that
            are not given.
        owner: the function that takes these arguments, for messages.

    Raises:
        ConfigError: there is no such regularizer, or it does not have exactly one strength.
    """
    ensure_loaded()
    if isinstance(regularizer, type):
        name = regularizer.__name__
        raise ConfigError(
            f'regularizer of {owner} is the class {name}; build it, as in {name}(...)'
        )
    given = {name: value for name, value in strengths.items() if value is not None}
    if len(given) > 1:
        raise ConfigError(
            f'{" and ".join(given)} of {owner} are forms of one strength; expected one of them'
        )
    config = {'type': regularizer} if isinstance(regularizer, str) else regularizer
    has_own = isinstance(config, Regularizer) or (
        isinstance(config, Mapping) and 'strength' in config
    )
    if given and has_own:
        raise ConfigError(
            f'{next(iter(given))} of {owner}, but the regularizer has a strength of its own; '
            'expected one of them'
        )
    if isinstance(config, Mapping):
        config = {**config, **_as_strength(given)}
        _check_strength(config, owner)
    built: Regularizer = build(REGULARIZERS, config, path='regularizer')
    built.check()
    return built


def _as_strength(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the argument ``strength`` of a regularizer, if one is given."""
    if not given or 'strength' in given:
        return dict(given)
    return {'strength': dict(given)}


def _check_strength(config: Mapping[str, Any], owner: str) -> None:
    """Raise ConfigError if a known regularizer needs a strength and has none."""
    cls = REGULARIZERS.class_of(config)
    parameter = None if cls is None else inspect.signature(cls).parameters.get('strength')
    if cls is None or parameter is None or 'strength' in config:
        return
    if parameter.default is parameter.empty:
        raise ConfigError(
            f'{cls.__name__} of {owner} needs a strength; give until=1e-3, which finds it, '
            'reach=5, which chooses it from the learning rates, or strength=5e-4'
        )


def _check_trained(
    regularizer: Regularizer, graph: ChannelGraph, masks: Masks | None, schedule: Schedule
) -> None:
    """Raise ConfigError if the optimizer does not train parameters that are pushed."""
    name = type(regularizer).__name__
    pushed = regularizer.pushed_names(graph, masks)
    missing = list(_untrained(pushed, schedule))
    if not schedule.by_parameter:
        raise ConfigError(
            f'the optimizer of {_OWNER} trains no parameter of this '
            f'{type(graph.model).__name__}; make it from the parameters of this network, and not '
            'of a copy'
        )
    if missing:
        shown = ', '.join(map(repr, missing[:_SHOWN])) + (', ...' if missing[_SHOWN:] else '')
        raise ConfigError(
            f'{name} pushes {len(pushed)} parameters, of which the optimizer of {_OWNER} does not '
            f'train {len(missing)}: {shown}; give the optimizer these parameters too, or set their '
            'requires_grad to False'
        )


def _untrained(names: list[str], schedule: Schedule) -> Iterator[str]:
    return (name for name in names if name not in schedule.by_parameter)
