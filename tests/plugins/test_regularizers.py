"""Properties of every regularizer: memory, frozen parameters, cuts, damaged weights."""

from __future__ import annotations

import gc
from collections.abc import Callable

import pytest
import torch
from easypruner_plugins.global_sparsity import GlobalSparsity
from easypruner_plugins.grad_decay import GradDecay
from easypruner_plugins.greg import GReg
from easypruner_plugins.group_lasso import GroupLasso
from easypruner_plugins.hoyer_square import HoyerSquare
from easypruner_plugins.mask_sparsity import MaskSparsity
from easypruner_plugins.polarization import Polarization
from torch import Tensor

import easypruner
from easypruner import Masks, Progress, Regularizer
from easypruner.errors import EasyPrunerError, MaskError
from easypruner.graph import ChannelGraph
from easypruner.testing.networks import Plain, Residual
from tests.helpers.pushes import Case, make_case

BUILDS: dict[str, Callable[[], Regularizer]] = {
    'GlobalSparsity': lambda: GlobalSparsity(0.1),
    'GlobalSparsity l2': lambda: GlobalSparsity(0.1, norm='l2'),
    'GlobalSparsity smooth': lambda: GlobalSparsity(0.1, norm='smooth_l1'),
    'GlobalSparsity weights': lambda: GlobalSparsity(0.1, without_scales='weights'),
    'MaskSparsity': lambda: MaskSparsity(0.1),
    'GroupLasso': lambda: GroupLasso(0.1),
    'GroupLasso group': lambda: GroupLasso(0.1, 'group', True, 4),
    'GradDecay': GradDecay,
    'GReg': lambda: GReg(0.1),
    'GReg group': lambda: GReg(0.1, over='group'),
    'Polarization': lambda: Polarization(0.1),
    'HoyerSquare': lambda: HoyerSquare(0.1),
    'HoyerSquare weights': lambda: HoyerSquare(0.1, 'weights'),
}
MASKED = ('MaskSparsity', 'GroupLasso group', 'GradDecay', 'GReg', 'GReg group')
ON_SCALES = ('MaskSparsity', 'GlobalSparsity', 'GradDecay', 'Polarization', 'HoyerSquare')
every = pytest.mark.parametrize('name', BUILDS)


def push(regularizer: Regularizer, given: Case, update: int = 1) -> None:
    regularizer.add_gradient(given.graph, given.masks, Progress(update, 100, lr=0.1))


def state(given: Case) -> dict[str, tuple[Tensor, Tensor | None]]:
    return {
        name: (p.detach().clone(), None if p.grad is None else p.grad.clone())
        for name, p in given.model.named_parameters()
    }


@every
def test_no_memory_grows_with_the_steps(name: str) -> None:
    given, regularizer = make_case(Residual), BUILDS[name]()

    def alive(steps: int) -> tuple[int, int]:
        for update in range(steps):
            push(regularizer, given, update)
        gc.collect()
        tensors = [thing for thing in gc.get_objects() if type(thing) is Tensor]
        return len(tensors), sum(tensor.numel() for tensor in tensors)

    gc.freeze()  # Ignore the objects that existed before.
    try:
        assert alive(3) == alive(30) != (0, 0)
    finally:
        gc.unfreeze()


@every
def test_facts_of_graph_and_masks_are_computed_once(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, regularizer, asked = make_case(Residual), BUILDS[name](), []
    find = ChannelGraph.parameter
    monkeypatch.setattr(ChannelGraph, 'parameter', lambda *a: asked.append(1) or find(*a))
    push(regularizer, given, 0)
    assert asked
    asked.clear()
    push(regularizer, given, 1)
    assert not asked


@every
def test_frozen_parameters_are_not_changed(name: str) -> None:
    given = make_case(Residual)
    for path in ('stem.0.weight', 'stem.1.weight', 'stem.1.bias'):
        given.graph.parameter(path).requires_grad_(False)
    before = state(given)
    push(BUILDS[name](), given)
    after = state(given)
    for path in ('stem.0.weight', 'stem.1.weight', 'stem.1.bias'):
        assert after[path][1] is None and torch.equal(before[path][0], after[path][0])
    assert any(
        value[1] is not None or not torch.equal(value[0], before[path][0])
        for path, value in after.items()
    )


@every
def test_without_trainable_parameters_it_reports_it(name: str) -> None:
    given = make_case(Residual)
    given.model.requires_grad_(False)
    with pytest.raises(EasyPrunerError, match='train'):
        push(BUILDS[name](), given)


@every
def test_a_cut_other_masks_and_other_graphs_are_prepared_again(name: str) -> None:
    given, regularizer = make_case(Residual), BUILDS[name]()
    push(regularizer, given)
    other = make_case(Plain)
    push(regularizer, other)
    easypruner.prune(given.model, given.masks, graph=given.graph)
    left = {name: torch.arange(group.size) % 2 == 0 for name, group in given.graph.groups.items()}
    for parameter in given.model.parameters():
        parameter.grad = None
    small = Case(given.model, given.graph, Masks(left), {})
    values = state(small)
    push(regularizer, small)
    actual = state(small)
    with torch.no_grad():
        for path, parameter in given.model.named_parameters():
            parameter.copy_(values[path][0])
            parameter.grad = None
    push(BUILDS[name](), small)
    for path, (value, gradient) in state(small).items():
        assert torch.equal(value, actual[path][0])
        assert (gradient is None) == (actual[path][1] is None)
        assert gradient is None or torch.equal(gradient, actual[path][1])


@pytest.mark.parametrize('name', ['GlobalSparsity', 'Polarization', 'HoyerSquare'])
def test_after_a_cut_the_same_graph_without_masks_is_prepared_again(name: str) -> None:
    given, regularizer = make_case(Residual), BUILDS[name]()
    regularizer.add_gradient(given.graph, None, Progress(0, 1))
    easypruner.prune(given.model, given.masks, graph=given.graph)
    regularizer.add_gradient(given.graph, None, Progress(0, 1))
    assert regularizer.penalty(given.graph, None).isfinite()


@pytest.mark.parametrize('name', MASKED)
def test_masks_of_another_network_are_refused(name: str) -> None:
    given, other = make_case(Residual), make_case(Plain)
    with pytest.raises(MaskError, match='which this model does not have'):
        BUILDS[name]().add_gradient(given.graph, other.masks, Progress(0, 1))
    easypruner.prune(given.model, given.masks, graph=given.graph)
    with pytest.raises(MaskError, match='one for each unit'):
        BUILDS[name]().add_gradient(given.graph, given.masks, Progress(0, 1))


@every
def test_nan_weights_are_named(name: str) -> None:
    given = make_case(Residual)
    path = 'stem.1.weight' if name.split()[0] in ON_SCALES else 'stem.0.weight'
    path = 'stem.0.weight' if name == 'HoyerSquare weights' else path
    with torch.no_grad():
        given.graph.parameter(path).flatten()[4] = float('nan')
    with pytest.raises(EasyPrunerError, match=rf'{path!r}, of which 1 of \d+ entries are NaN'):
        BUILDS[name]().largest(given.graph, given.masks)


@every
def test_a_copy_of_the_network_is_pushed_by_its_own_graph(name: str) -> None:
    import copy

    given, regularizer = make_case(Residual), BUILDS[name]()
    twin = copy.deepcopy(given.model)
    push(regularizer, given)
    push(regularizer, Case(twin, given.graph.on(twin), given.masks, {}))
    for mine, other in zip(given.model.parameters(), twin.parameters(), strict=True):
        assert (mine.grad is None) == (other.grad is None)
        assert torch.equal(mine, other)
        assert mine.grad is None or torch.equal(mine.grad, other.grad)
