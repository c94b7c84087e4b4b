"""Checks that every mask source, budget and regularizer has to pass."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from easypruner.graph import ChannelGraph, Limits, Masks
from easypruner.slimming import trace, verify
from easypruner.strategies import Budget, Context, MaskSource, Progress, Regularizer, Scores
from easypruner.strategies.budgets.costs import CostBudget
from easypruner.strategies.sources.source import checked_scores
from easypruner.testing.contexts import tiny_context
from easypruner.testing.networks import NETWORKS
from easypruner.testing.trials import Before, Networks, Refusals, as_networks, check_masks

Formula = Callable[[ChannelGraph, Masks | None], Tensor]
"""A penalty as in its paper: a function that returns a scalar with a gradient."""

ForwardFormula = Callable[[ChannelGraph, Masks | None, Tensor], Tensor]
"""A penalty on a forward pass, as in its paper. Its last argument is the input of the network."""

_LIMITS = Limits(min_units=2, round_to=2)
_COSTS = {'MACs': 'macs', 'params': 'params'}
"""Unit of a budget -> the attribute of a cost that has this unit."""


def random_masks(graph: ChannelGraph, keep: float = 0.6, seed: int = 0) -> Masks:
    """Return masks that keep random units, at least one of each group."""
    generator = torch.Generator().manual_seed(seed)
    masks = {}
    for name, group in graph.groups.items():
        mask = torch.rand(group.size, generator=generator) < keep
        mask[int(torch.randint(group.size, (1,), generator=generator))] = True
        masks[name] = mask
    return Masks(masks)


def check_source(source: MaskSource, networks: Networks = NETWORKS) -> None:
    """Check a mask source, which has a budget, on tiny networks of every structure.

    The check passes if scores are numbers, one for each unit; masks fit, keep a unit of every group
    and verify; a second call selects the same masks; and the network does not change or get
    gradients or hooks. The source may refuse some networks with an EasyPrunerError, but not all.

    Args:
        source: the mask source, with its budget.
        networks: one or several networks to try.

    Raises:
        AssertionError: the check fails.
    """
    refusals = Refusals()
    for network in as_networks(networks):
        model = network.make()
        before = Before.of(model)
        graph = trace(model, network.inputs())
        context = tiny_context(network)
        for masks in refusals.attempt(network.name, _select, source, graph, context, network.name):
            check_masks(masks, graph, network.name)
            again = source.select(graph, context)
            assert again == masks, f'{network.name}: a second call selects other masks'
            before.check(model, network.name)
            error = verify(model, masks, network.inputs()).error
            assert error < 1e-5, f'{network.name}: verify finds an error of {error}'
    refusals.check()


def _select(source: MaskSource, graph: ChannelGraph, context: Context, case: str) -> Masks:
    """Return the masks of a source, after a check of its scores."""
    if type(source).select is MaskSource.select:
        name = type(source).__name__
        for group, score in checked_scores(source.score(graph, context), graph, name).items():
            nan = int(score.isnan().sum())
            assert not nan, f'{case}: {nan} scores of group {group!r} are NaN'
    return source.select(graph, context)


def check_budget(budget: Budget, networks: Networks = NETWORKS) -> None:
    """Check a budget on random scores of tiny networks, with and without limits on groups.

    The check passes if masks fit, keep a unit of every group, keep the best units of each group,
    meet the limit to within one unit, and leave each group with a width that its limits allow.
    Multiply-adds and parameters are counted independently. The budget may refuse some networks with
    an EasyPrunerError, but not all, and it has to remove units of at least one network.

    Args:
        budget: the budget.
        networks: one or several networks to try.

    Raises:
        AssertionError: the check fails.
    """
    refusals, removed = Refusals(), 0
    for network, limits in itertools.product(as_networks(networks), (None, _LIMITS)):
        case = network.name
        graph = trace(network.make(), network.inputs(), limits=limits)
        generator = torch.Generator().manual_seed(0)
        scores = Scores(
            {n: torch.rand(g.size, generator=generator) for n, g in graph.groups.items()}
        )
        for masks in refusals.attempt(case, budget, scores, graph, tiny_context(network)):
            check_masks(masks, graph, case)
            _check_best(masks, scores, case)
            removed += masks.removed_units
            if limits is None:
                check_met(budget, masks, graph)
                _check_counted(budget, masks, graph, case)
            else:
                # The limits on a group have priority over the budget.
                _check_widths(masks, graph, case)
    refusals.check()
    name = type(budget).__name__
    assert removed, f'{name} removes no units of any network; check it with a lower limit'


def _check_best(masks: Masks, scores: Mapping[str, Tensor], case: str) -> None:
    for name, mask in masks.items():
        kept, gone = scores[name][mask], scores[name][~mask]
        best = not gone.numel() or bool(kept.min() >= gone.max())
        assert best, (
            f'{case}: in group {name!r} a unit with score {kept.min():.3g} is kept, and one with '
            f'{gone.max():.3g} is removed; expected to keep higher scores'
        )


def _check_counted(budget: Budget, masks: Masks, graph: ChannelGraph, case: str) -> None:
    for part in budget.parts():
        if not isinstance(part, CostBudget) or part.unit not in _COSTS:
            continue
        cost, whole = (getattr(graph.cost(m), _COSTS[part.unit]) for m in (masks, None))
        counted = cost if part.keep is None else cost / whole
        reported = part.delivered(masks, graph)
        same = abs(reported - counted) <= 1e-6 * max(counted, 1.0)
        assert same, f'{case}: {part.kind} reports {reported}, but the graph has {counted}'


def _check_widths(masks: Masks, graph: ChannelGraph, case: str) -> None:
    for name, mask in masks.items():
        kept, allowed = int(mask.sum()), graph.limits[name].widths(mask.numel())
        got = f'{case}: {kept} units of group {name!r} are kept'
        assert kept in allowed, f'{got}, but its limits allow {allowed}'


def check_met(budget: Budget, masks: Masks, graph: ChannelGraph) -> None:
    """Check that masks meet each limit of a budget to within one unit.

    Raises:
        AssertionError: a limit is not met.
    """
    units = sum(group.size for group in graph.groups.values())
    for part in budget.parts():
        asked, delivered = part.asked_of(masks, graph), part.delivered(masks, graph)
        met = delivered <= asked + 1 / units
        assert met, f'{part.kind}: delivered {delivered}, but the limit is {asked}'


def check_gradient(
    regularizer: Regularizer, formula: Formula, networks: Networks = NETWORKS
) -> None:
    """Check that a regularizer adds the gradient of a formula and changes nothing else.

    The check uses double precision and runs with masks and without. The regularizer may refuse some
    of these cases with an EasyPrunerError, but not all.

    Args:
        regularizer: the regularizer; its strength schedule has to be constant.
        formula: the penalty, written independently of the regularizer. Its second argument is None
            if the regularizer is called without masks.
        networks: one or several networks to try.

    Raises:
        AssertionError: the gradient of a parameter is wrong, or the regularizer changes the
            network.
    """
    name = type(regularizer).__name__
    assert regularizer.pushes_parameters, (
        f'{name} acts on forward passes only; check it with check_forward_penalty()'
    )
    _check_penalty(_check_gradients, networks, regularizer, formula)


def _check_penalty(check: Callable[..., None], networks: Networks, *given: Any) -> None:
    """Run the check of a penalty on each network, with masks and without."""
    refusals = Refusals()
    for network, masked in itertools.product(as_networks(networks), (True, False)):
        graph = trace(network.make().double(), network.inputs().double())
        masks = random_masks(graph) if masked else None
        case = network.name if masked else f'{network.name} without masks'
        refusals.attempt(case, check, *given, graph, masks, case)
    refusals.check()


def _check_gradients(
    regularizer: Regularizer, formula: Formula, graph: ChannelGraph, masks: Masks | None, case: str
) -> None:
    parameters = _with_gradients(graph.model)
    before = Before.of(graph.model)
    regularizer.add_gradient(graph, masks, Progress(0, 10))
    before.check(graph.model, case, gradients=False)
    _check_added(parameters, formula(graph, masks), case)


def check_forward_penalty(
    regularizer: Regularizer, formula: ForwardFormula, networks: Networks = NETWORKS
) -> None:
    """Check that the penalty on forward passes is a formula, and that watching changes nothing.

    The check runs with masks and without. It passes if the penalty and its gradient are those of
    the formula; a forward pass without gradients, as in a validation, does not count; and no hooks
    remain. The regularizer may refuse some of these cases with an EasyPrunerError, but not all.

    Args:
        regularizer: the regularizer; its strength schedule has to be constant.
        formula: the penalty, written independently of the regularizer. Its second argument is None
            if there are no masks, and its third is the input of the network.
        networks: one or several networks to try.

    Raises:
        AssertionError: the penalty or its gradient is wrong, or the regularizer changes the
            network.
    """
    name = type(regularizer).__name__
    assert regularizer.watches, (
        f'{name} has no forward_penalty(); check its gradient with check_gradient()'
    )
    _check_penalty(_check_forward_penalty, networks, regularizer, formula)


def _check_forward_penalty(
    regularizer: Regularizer,
    formula: ForwardFormula,
    graph: ChannelGraph,
    masks: Masks | None,
    case: str,
) -> None:
    model, inputs = graph.model, graph.example_inputs
    expected = formula(graph, masks, inputs)
    before = Before.of(model)
    with regularizer.watching(graph, masks):
        with torch.no_grad():
            model(2 * inputs)
        model(inputs)
        penalty = regularizer.forward_penalty(Progress(0, 10))
    before.check(model, case)
    penalty = inputs.new_zeros(()) if penalty is None else penalty
    assert torch.allclose(penalty.to(expected), expected, rtol=1e-5, atol=1e-6), (
        f'{case}: got a penalty of {penalty.item():.6g}, but the formula is {expected.item():.6g}'
    )
    if expected.requires_grad:
        assert penalty.requires_grad, f'{case}: the penalty has no gradient'
        parameters = _with_gradients(model)
        torch.autograd.backward(penalty)
        _check_added(parameters, expected, case)


def _with_gradients(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters of a network, after their gradients were set to 0.25."""
    parameters = dict(model.named_parameters())
    for parameter in parameters.values():
        parameter.grad = torch.full_like(parameter, 0.25)
    return parameters


def _check_added(parameters: Mapping[str, nn.Parameter], penalty: Tensor, case: str) -> None:
    """Check that the gradient of a penalty was added to gradients that were all 0.25."""
    gradients = torch.autograd.grad(penalty, list(parameters.values()), allow_unused=True)
    for (name, parameter), gradient in zip(parameters.items(), gradients, strict=True):
        expected = torch.zeros_like(parameter) if gradient is None else gradient
        assert parameter.grad is not None, f'{case}, {name}: the gradient was removed'
        added = parameter.grad - 0.25
        assert torch.allclose(added, expected, rtol=1e-5, atol=1e-8), (
            f'{case}, {name}: {_largest_difference(added, expected)}'
        )


def _largest_difference(added: Tensor, expected: Tensor) -> str:
    index = torch.unravel_index((added - expected).abs().argmax(), added.shape)
    got, formula = float(added[index]), float(expected[index])
    where = tuple(map(int, index))
    return f'got a gradient of {got:.6g} at {where}, but that of the formula is {formula:.6g}'
