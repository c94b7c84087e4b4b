"""Checks of single components: what every mask source, budget and regularizer must do."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from easypruner.errors import EasyPrunerError
from easypruner.graph import ChannelGraph
from easypruner.graph.limits import Limits
from easypruner.graph.masks import Masks
from easypruner.graph.verify import verify
from easypruner.slimming import trace
from easypruner.strategies import Budget, Context, MaskSource, Progress, Regularizer, Scores
from easypruner.strategies.budgets.costs import CostBudget
from easypruner.strategies.sources.source import checked_scores
from easypruner.testing.contexts import tiny_context
from easypruner.testing.leftovers import Before
from easypruner.testing.networks import NETWORKS
from easypruner.testing.trials import Networks, check_is_refusal, check_masks, listed

Formula = Callable[[ChannelGraph, Masks | None], Tensor]
"""A penalty as its paper writes it, as a scalar that has a gradient."""

_LIMITS = Limits(min_units=2, round_to=2)
_COSTS = {'MACs': 'macs', 'params': 'params'}
"""Unit of a budget -> the cost of a network that is counted in it."""


def random_masks(graph: ChannelGraph, keep: float = 0.6, seed: int = 0) -> Masks:
    """Return masks that keep units at random, one of each group at the least."""
    generator = torch.Generator().manual_seed(seed)
    masks = {}
    for name, group in graph.groups.items():
        mask = torch.rand(group.size, generator=generator) < keep
        mask[int(torch.randint(group.size, (1,), generator=generator))] = True
        masks[name] = mask
    return Masks(masks)


def check_source(source: MaskSource, networks: Networks = NETWORKS) -> None:
    """Check a mask source with a budget on tiny networks of every structure.

    Its scores are numbers, one for each unit; its masks fit, leave a unit in every group and
    verify; the same call chooses the same; the network is left as it was, without gradients and
    hooks. A network that the source itself refuses with an EasyPrunerError is passed over, as long
    as there is one that it does not.

    Args:
        source: with its budget.
        networks: to try; one or several.

    Raises:
        AssertionError: something of this does not hold.
    """
    tried, refused = listed(networks), []
    for network in tried:
        model = network.make()
        before = Before.of(model)
        graph = trace(model, network.inputs())
        context = tiny_context(network)
        try:
            masks = _selected(source, graph, context, network.name)
        except EasyPrunerError as error:
            refused.append(f'{network.name}: {error}')
            continue
        check_masks(masks, graph, network.name)
        assert source.select(graph, context) == masks, f'{network.name}: another choice each time'
        before.check(model, network.name)
        error_of_cut = verify(model, masks, network.inputs()).error
        assert error_of_cut < 1e-5, f'{network.name}: verify finds an error of {error_of_cut}'
    assert len(refused) < len(tried), f'refuses all networks: {refused}'


def _selected(source: MaskSource, graph: ChannelGraph, context: Context, case: str) -> Masks:
    """Return what a source chooses; only what it refuses itself comes out as EasyPrunerError."""
    try:
        if type(source).select is MaskSource.select:
            name = type(source).__name__
            for group, score in checked_scores(source.score(graph, context), graph, name).items():
                strange = int(score.isnan().sum())
                assert not strange, f'{case}: {strange} scores of group {group!r} are NaN'
        return source.select(graph, context)
    except EasyPrunerError as error:
        check_is_refusal(error, case)
        raise


def check_budget(budget: Budget, networks: Networks = NETWORKS) -> None:
    """Check a budget on random scores of tiny networks, with and without limits of the groups.

    Its masks fit, leave a unit in every group, keep the best units of each, meet what was asked to
    within one unit, and leave each group with a width that its limits allow. Multiply-adds and
    parameters are counted a second time. A network that the budget itself refuses with an
    EasyPrunerError is passed over, as long as there is one that it does not; and of one at least
    it has to remove something.

    Args:
        budget: to check.
        networks: to try; one or several.

    Raises:
        AssertionError: something of this does not hold.
    """
    tried, refused, removed = listed(networks), [], 0
    for network, limits in itertools.product(tried, (None, _LIMITS)):
        graph = trace(network.make(), network.inputs(), limits=limits)
        generator = torch.Generator().manual_seed(0)
        scores = Scores(
            {n: torch.rand(g.size, generator=generator) for n, g in graph.groups.items()}
        )
        try:
            masks = budget(scores, graph, tiny_context(network))
        except EasyPrunerError as error:
            check_is_refusal(error, network.name)
            refused.append(f'{network.name}: {error}')
            continue
        check_masks(masks, graph, network.name)
        _check_best(masks, scores, network.name)
        removed += masks.removed_units
        if limits is None:
            check_met(budget, masks, graph)
            _check_counted(budget, masks, graph, network.name)
        else:
            # A group's limits come before what was asked of it.
            _check_widths(masks, graph, network.name)
    assert len(refused) < 2 * len(tried), f'refuses all networks: {refused}'
    assert removed, f'removes nothing of any network; check {type(budget).__name__} with less'


def _check_best(masks: Masks, scores: Mapping[str, Tensor], case: str) -> None:
    for name, mask in masks.items():
        kept, gone = scores[name][mask], scores[name][~mask]
        best = not gone.numel() or bool(kept.min() >= gone.max())
        assert best, (
            f'{case}: of group {name!r} a unit of score {kept.min():.3g} stays and one of '
            f'{gone.max():.3g} goes; higher = keep'
        )


def _check_counted(budget: Budget, masks: Masks, graph: ChannelGraph, case: str) -> None:
    for part in budget.parts():
        if not isinstance(part, CostBudget) or part.unit not in _COSTS:
            continue
        cost, whole = (getattr(graph.cost(m), _COSTS[part.unit]) for m in (masks, None))
        counted = cost if part.keep is None else cost / whole
        told = part.delivered(masks, graph)
        same = abs(told - counted) <= 1e-6 * max(counted, 1.0)
        assert same, f'{case}: {part.kind} delivers {told}, but {counted} is counted'


def _check_widths(masks: Masks, graph: ChannelGraph, case: str) -> None:
    for name, mask in masks.items():
        kept, allowed = int(mask.sum()), graph.limits[name].widths(mask.numel())
        found = f'{case}: {kept} units stay of group {name!r}'
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
    regularizer: Regularizer, formula: Formula, networks: Networks = NETWORKS
) -> None:
    """Check that a regularizer adds the gradient of a formula, in double precision, and no more.

    That is tried with masks and without. What it refuses with an EasyPrunerError is passed over,
    as long as there is a network that it does not.

    Args:
        regularizer: to check; its strength schedule has to be constant.
        formula: the penalty, written independently of the regularizer; its masks are None where
            a regularizer that needs none is called without.
        networks: to try; one or several.

    Raises:
        AssertionError: for some parameter it does not, or it changes the network otherwise.
    """
    tried, refused = listed(networks), []
    for network, masked in itertools.product(tried, (True, False)):
        model = network.make().double()
        graph = trace(model, network.inputs().double())
        masks = random_masks(graph) if masked else None
        case = network.name if masked else f'{network.name} without masks'
        try:
            _check_slopes(regularizer, formula, graph, masks, case)
        except EasyPrunerError as error:
            check_is_refusal(error, case)
            refused.append(f'{case}: {error}')
    assert len(refused) < 2 * len(tried), f'refuses all networks: {refused}'


def _check_slopes(
    regularizer: Regularizer, formula: Formula, graph: ChannelGraph, masks: Masks | None, case: str
) -> None:
    parameters = dict(graph.model.named_parameters())
    for parameter in parameters.values():
        parameter.grad = torch.full_like(parameter, 0.25)
    before = Before.of(graph.model)
    regularizer.add_gradient(graph, masks, Progress(0, 10))
    before.check(graph.model, case, gradients=False)
    expected = torch.autograd.grad(
        formula(graph, masks), list(parameters.values()), allow_unused=True
    )
    for (name, parameter), slope in zip(parameters.items(), expected, strict=True):
        wanted = torch.zeros_like(parameter) if slope is None else slope
        assert parameter.grad is not None, f'{case}, {name}: there is no gradient any more'
        added = parameter.grad - 0.25
        assert torch.allclose(added, wanted, atol=1e-8), (
            f'{case}, {name}: {_largest_difference(added, wanted)}'
        )


def _largest_difference(added: Tensor, wanted: Tensor) -> str:
    place = int((added - wanted).abs().argmax())
    index = tuple(int(i) for i in torch.unravel_index(torch.tensor(place), added.shape))
    met, expected = float(added.flatten()[place]), float(wanted.flatten()[place])
    return f'{met:.6g} is added at {index}, where the formula has a slope of {expected:.6g}'
