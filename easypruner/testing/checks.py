"""Checks of single components: what every mask source, budget, regularizer and handler must do."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from easypruner.contracts import Budget, LayerHandler, MaskSource, Progress, Regularizer
from easypruner.errors import EasyPrunerError, MaskError
from easypruner.graph import ChannelGraph, prune, trace
from easypruner.graph.tape import ExampleInputs
from easypruner.graph.verify import verify
from easypruner.limits import Limits
from easypruner.masks import Masks
from easypruner.testing.contexts import tiny_context
from easypruner.testing.networks import NETWORKS, TinyNetwork

Formula = Callable[[ChannelGraph, Masks | None], Tensor]
"""A penalty as its paper writes it, as a scalar that has a gradient."""

_LIMITS = Limits(min_units=2, round_to=2)


def random_masks(graph: ChannelGraph, keep: float = 0.6, seed: int = 0) -> Masks:
    """Return masks that keep units at random, one of each group at the least."""
    generator = torch.Generator().manual_seed(seed)
    masks = {}
    for name, group in graph.groups.items():
        mask = torch.rand(group.size, generator=generator) < keep
        mask[int(torch.randint(group.size, (1,), generator=generator))] = True
        masks[name] = mask
    return Masks(masks)


def check_source(source: MaskSource, networks: Iterable[TinyNetwork] = NETWORKS) -> None:
    """Check a mask source with a budget on tiny networks of every structure.

    Its masks fit, leave a unit in every group and verify; the same call chooses the same; the
    network is left as it was. A network that it refuses with an EasyPrunerError is passed over,
    as long as there is one that it does not.

    Args:
        source: with its budget.
        networks: to try.

    Raises:
        AssertionError: something of this does not hold.
    """
    tried, refused = tuple(networks), []
    for network in tried:
        model = network.make()
        before = copy.deepcopy(model.state_dict())
        graph = trace(model, network.inputs())
        context = tiny_context(network)
        try:
            masks = source.select(graph, context)
        except EasyPrunerError as error:
            refused.append(f'{network.name}: {error}')
            continue
        _check_fit(masks, graph, network)
        assert source.select(graph, context) == masks, f'{network.name}: another choice each time'
        for name, tensor in model.state_dict().items():
            assert torch.equal(tensor, before[name]), f'{network.name}: {name} has changed'
        assert not any(m.training for m in model.modules()), f'{network.name}: in training mode'
        error_of_cut = verify(model, masks, network.inputs()).error
        assert error_of_cut < 1e-5, f'{network.name}: verify finds an error of {error_of_cut}'
    assert len(refused) < len(tried), f'refuses all networks: {refused}'


def check_budget(budget: Budget, networks: Iterable[TinyNetwork] = NETWORKS) -> None:
    """Check a budget on random scores of tiny networks, with and without limits of the groups.

    Its masks fit, leave a unit in every group, meet what was asked to within one unit, and leave
    each group with a width that its limits allow. A network that it refuses with an
    EasyPrunerError is passed over, as long as there is one that it does not.

    Raises:
        AssertionError: something of this does not hold.
    """
    tried, refused = tuple(networks), []
    for network, limits in itertools.product(tried, (None, _LIMITS)):
        graph = trace(network.make(), network.inputs(), limits=limits)
        generator = torch.Generator().manual_seed(0)
        scores = {n: torch.rand(g.size, generator=generator) for n, g in graph.groups.items()}
        try:
            masks = budget(scores, graph, tiny_context(network))
        except EasyPrunerError as error:
            refused.append(f'{network.name}: {error}')
            continue
        _check_fit(masks, graph, network)
        if limits is None:
            check_met(budget, masks, graph)
        else:
            # A group's limits come before what was asked of it.
            _check_widths(masks, graph, network)
    assert len(refused) < 2 * len(tried), f'refuses all networks: {refused}'


def _check_fit(masks: Masks, graph: ChannelGraph, network: TinyNetwork) -> None:
    try:
        masks.check(graph)
    except MaskError as error:
        raise AssertionError(f'{network.name}: {error}') from error


def _check_widths(masks: Masks, graph: ChannelGraph, network: TinyNetwork) -> None:
    for name, mask in masks.items():
        kept, allowed = int(mask.sum()), graph.limits[name].widths(mask.numel())
        found = f'{network.name}: {kept} units stay of group {name!r}'
        assert kept in allowed, f'{found}, whose limits allow {allowed}'


def check_met(budget: Budget, masks: Masks, graph: ChannelGraph) -> None:
    """Check that masks deliver what each part of a budget asked for, to within one unit.

    Raises:
        AssertionError: one of them does not.
    """
    units = sum(group.size for group in graph.groups.values())
    for part in budget.parts():
        asked, delivered = part.asked_of(masks, graph), part.delivered(masks, graph)
        assert delivered <= asked + 1 / units, f'{part.kind}: {delivered} for {asked}'


def check_gradient(
    regularizer: Regularizer, formula: Formula, networks: Iterable[TinyNetwork] = NETWORKS
) -> None:
    """Check that a regularizer adds the gradient of a formula, in double precision.

    That is tried with masks and without. What it refuses with an EasyPrunerError is passed over,
    as long as there is a network that it does not.

    Args:
        regularizer: to check; its strength schedule has to be constant.
        formula: the penalty, written independently of the regularizer; its masks are None where
            a regularizer that needs none is called without.
        networks: to try.

    Raises:
        AssertionError: for some parameter it does not.
    """
    tried, refused = tuple(networks), []
    for network, masked in itertools.product(tried, (True, False)):
        model = network.make().double()
        graph = trace(model, network.inputs().double())
        masks = random_masks(graph) if masked else None
        case = network.name if masked else f'{network.name} without masks'
        try:
            _check_slopes(regularizer, formula, graph, masks, case)
        except EasyPrunerError as error:
            refused.append(f'{case}: {error}')
    assert len(refused) < 2 * len(tried), f'refuses all networks: {refused}'


def _check_slopes(
    regularizer: Regularizer, formula: Formula, graph: ChannelGraph, masks: Masks | None, case: str
) -> None:
    parameters = dict(graph.model.named_parameters())
    for parameter in parameters.values():
        parameter.grad = torch.full_like(parameter, 0.25)
    regularizer.add_gradient(graph, masks, Progress(0, 10))
    expected = torch.autograd.grad(
        formula(graph, masks), list(parameters.values()), allow_unused=True
    )
    for (name, parameter), slope in zip(parameters.items(), expected, strict=True):
        wanted = 0.25 + (torch.zeros_like(parameter) if slope is None else slope)
        same = parameter.grad is not None and torch.allclose(parameter.grad, wanted)
        assert same, f'{case}, {name}: {parameter.grad}, expected {wanted}'


def check_handler(
    handler: LayerHandler | Sequence[LayerHandler], model: nn.Module, inputs: ExampleInputs
) -> dict[str, Any]:
    """Cut a network by random masks, with a layer handler, and run it.

    Args:
        handler: one, or several in order of precedence.
        model: with layers that it handles; it is cut in place.
        inputs: for the model.

    Returns:
        path -> module of the pruned network, to look at the numbers in.

    Raises:
        AssertionError: nothing can be cut, or the pruned network computes something else.
    """
    handlers = [handler] if isinstance(handler, LayerHandler) else list(handler)
    graph = trace(model, inputs, handlers)
    masks = random_masks(graph, keep=0.5)
    assert masks.removed_units, f'nothing of this {type(model).__name__} can be cut'
    found = verify(model, masks, inputs, handlers)
    assert found.passed, f'verify finds an error of {found.error}'
    prune(model, masks, graph=graph)
    args = inputs if isinstance(inputs, tuple) else (inputs,)
    with torch.no_grad():
        model(**inputs) if isinstance(inputs, dict) else model(*args)
    return dict(model.named_modules())
