"""GlobalSparsity and MaskSparsity: their gradients are the papers' formulas, exactly."""

from __future__ import annotations

import pytest
import torch
from easypruner_plugins.global_sparsity import GlobalSparsity
from easypruner_plugins.mask_sparsity import MaskSparsity

import easypruner
from easypruner import Masks, Progress, Regularizer, Schedule
from easypruner.errors import ConfigError, EasyPrunerError
from tests.graph.test_prune import random_masks
from tests.networks import Residual, example, lively

STRENGTH = 5e-4


def added(regularizer: Regularizer, masks: Masks | None, scale: float | None = None) -> dict:
    """Return the gradient that the regularizer adds to each parameter."""
    model = lively(Residual)
    with torch.no_grad():
        model.stem[1].weight[::2] *= -1
        model.stem[1].weight[0] = 0
    graph = easypruner.trace(model, example())
    grad_scale = None if scale is None else torch.tensor(scale)
    model(example()).square().mean().backward()
    before = {name: p.grad.clone() for name, p in model.named_parameters()}
    regularizer.add_gradient(graph, masks, Progress(0, 1, grad_scale))
    return {
        name: (p.detach(), p.grad.double() - before[name].double())
        for name, p in model.named_parameters()
    }


def is_scale(name: str) -> bool:
    return name in ('stem.1.weight', 'conv.0.1.weight', 'conv.2.weight')


def test_global_sparsity_pushes_every_scale() -> None:
    for name, (parameter, gradient) in added(GlobalSparsity(STRENGTH), None).items():
        expected = STRENGTH * parameter.sign() if is_scale(name) else torch.zeros_like(parameter)
        assert torch.allclose(gradient, expected.double(), atol=1e-9), name


def test_mask_sparsity_pushes_the_removed_scales_and_nothing_else() -> None:
    masks = Masks({'stem.0': torch.arange(8) < 5, 'conv.0.0': torch.arange(6) > 1})
    removed = {
        'stem.1.weight': ~masks['stem.0'],
        'conv.2.weight': ~masks['stem.0'],
        'conv.0.1.weight': ~masks['conv.0.0'],
    }
    for name, (parameter, gradient) in added(MaskSparsity(STRENGTH), masks).items():
        if name not in removed:
            assert not gradient.any(), name
            continue
        assert not gradient[~removed[name]].any()
        expected = STRENGTH * parameter.sign()[removed[name]].double()
        assert torch.allclose(gradient[removed[name]], expected, atol=1e-9)


def test_scaled_gradients_get_a_scaled_penalty() -> None:
    for parameter, gradient in (added(GlobalSparsity(STRENGTH), None, 8.0)['stem.1.weight'],):
        assert torch.allclose(gradient, 8 * STRENGTH * parameter.sign().double(), atol=1e-9)


@pytest.mark.parametrize('kind', [GlobalSparsity, MaskSparsity])
def test_the_gradient_is_that_of_the_penalty(kind: type[Regularizer]) -> None:
    model = lively(Residual)
    graph = easypruner.trace(model, example())
    masks = Masks(random_masks(model, 0))
    regularizer = kind(0.3)
    regularizer.add_gradient(graph, masks, Progress(0, 1))
    fast = {name: p.grad for name, p in model.named_parameters()}
    model.zero_grad()
    Regularizer.add_gradient(regularizer, graph, masks, Progress(0, 1))
    for name, parameter in model.named_parameters():
        if fast[name] is None:
            assert parameter.grad is None
        else:
            assert torch.allclose(fast[name], parameter.grad), name


def test_reach_picks_the_strength_that_moves_a_scale_that_far() -> None:
    schedule = Schedule(lr_sum=2.0, momentum=0.9, updates=100)
    regularizer = GlobalSparsity({'reach': 5.0})
    regularizer.schedule(schedule)
    assert regularizer.strength == pytest.approx(5.0 * 0.1 / 2.0)
    assert regularizer.reach(schedule) == pytest.approx(5.0)
    fixed = GlobalSparsity(5e-4)
    fixed.schedule(schedule)
    assert fixed.reach(schedule) == pytest.approx(5e-4 * 20)


def test_the_largest_scale_is_that_of_what_is_pushed() -> None:
    model = lively(Residual)
    with torch.no_grad():
        model.stem[1].weight[0] = -7
    graph = easypruner.trace(model, example())
    masks = Masks({'stem.0': torch.arange(8) != 3})
    assert GlobalSparsity(1.0).largest(graph, None) == 7
    pushed = max(model.stem[1].weight[3].abs(), model.conv[2].weight[3].abs()).detach()
    assert MaskSparsity(1.0).largest(graph, masks) == pytest.approx(pushed.item())


def test_mask_sparsity_without_masks_says_what_is_missing() -> None:
    graph = easypruner.trace(lively(Residual), example())
    with pytest.raises(ConfigError, match='SelectMask'):
        MaskSparsity(1.0).add_gradient(graph, None, Progress(0, 1))
    with pytest.raises(EasyPrunerError, match='none are to be pushed'):
        MaskSparsity(1.0).add_gradient(graph, Masks(), Progress(0, 1))


@pytest.mark.parametrize('strength', [-1.0, 'much', True, {'far': 1.0}, {'reach': -2.0}])
def test_a_strength_that_is_none_is_refused(strength: object) -> None:
    with pytest.raises(ConfigError, match='strength='):
        GlobalSparsity(strength)
