"""The states of optimizers of other packages are cut, as a twin made by hand shows, or refused."""

from __future__ import annotations

import copy
import inspect
from importlib import import_module
from typing import Any

import pytest
import torch
from torch import nn

import easypruner
from easypruner.errors import CutError
from easypruner.plugins.handlers import plugin_optimizer_handlers
from easypruner.testing.optimizer_check import KEPT
from tests.helpers.optimizer_twins import check_twin, prune, trained_with, update

WRAPPERS = (
    'pytorch_optimizer.Lookahead',
    'pytorch_optimizer.OrthoGrad',
    'pytorch_optimizer.ScheduleFreeWrapper',
    'schedulefree.ScheduleFreeWrapper',
    'schedulefree.ScheduleFreeWrapperReference',
    'timm.optim.Lookahead',
)
HANDLED = sorted(
    name
    for handler in plugin_optimizer_handlers()
    for name in handler.handles
    if isinstance(name, str) and name not in WRAPPERS
)
OPTIONS: dict[str, dict[str, Any]] = {
    'mmpretrain.engine.optimizers.LARS': {'lr': 0.1, 'momentum': 0.9},
    'pytorch_optimizer.AliG': {'momentum': 0.9},
    'pytorch_optimizer.AdaBelief': {'ams_bound': True},
    'pytorch_optimizer.Ranger21': {'num_iterations': 10},
    'pytorch_optimizer.RACS': {'lr': 0.01},
    'pytorch_optimizer.SGDW': {'momentum': 0.9},
    'pytorch_optimizer.Shampoo': {'momentum': 0.9},
    'timm.optim.Adafactor': {'min_dim_size_to_factor': 3, 'betas': (0.9, 0.99)},
    'timm.optim.AdafactorBigVision': {'min_dim_size_to_factor': 99},
    'timm.optim.RMSpropTF': {'momentum': 0.9, 'centered': True},
    'timm.optim.SGDW': {'lr': 0.1, 'momentum': 0.9},
    'timm.optim.SGDP': {'lr': 0.1, 'momentum': 0.9},
}
LATE = {'pytorch_optimizer.AdaShift', 'pytorch_optimizer.RAdam', 'pytorch_optimizer.ROSE'}
"""Optimizers that leave the weights as they are in their first updates."""
GIVEN = {'num_iterations': 10, 'total_steps': 10}
REFUSED = (
    'AdamMini', 'AdamWSN', 'Alice', 'APOLLO', 'Conda', 'DASH', 'Fira', 'FlashAdamW', 'GaLore',
    'Kron', 'ScalableShampoo', 'SOAP', 'SPAM', 'SPlus',
)  # fmt: skip


def named(name: str) -> Any:
    """Return an optimizer's class from its full name; skip the test if it is not installed."""
    module, _, local = name.rpartition('.')
    package = module.partition('.')[0]
    pytest.importorskip(package, reason=f"{package} is in the extra 'dev'")
    found = getattr(import_module(module), local, None)
    if found is None:
        pytest.skip(f'the installed version of {package} has no {local}')
    return found


def make_of(name: str, **more: Any) -> Any:
    cls, options = named(name), {**OPTIONS.get(name, {}), **more}
    known = inspect.signature(cls).parameters
    options.update({key: value for key, value in GIVEN.items() if key in known})

    def make(model: nn.Module) -> Any:
        parameters: Any = model.parameters()
        if 'use_muon' in inspect.getsource(cls) and name.startswith('pytorch_optimizer'):
            every = list(parameters)
            parameters = [
                {'params': [p for p in every if (p.dim() > 1) is muon], 'use_muon': muon}
                for muon in (True, False)
            ]
        return cls(model if 'model' in known else parameters, **options)

    return make


@pytest.mark.parametrize('name', HANDLED)
def test_an_optimizer_goes_on_like_a_twin(name: str) -> None:
    check_twin((), make_of(name), updates=12 if name in LATE else 3)


@pytest.mark.parametrize('name', WRAPPERS)
def test_an_optimizer_around_another_goes_on_like_a_twin(name: str) -> None:
    cls = named(name)
    options: dict[str, Any] = {'k': 2} if name.endswith('Lookahead') else {}
    check_twin((), lambda m: cls(torch.optim.SGD(m.parameters(), 0.1, momentum=0.9), **options))


@pytest.mark.parametrize('name', REFUSED)
def test_an_optimizer_with_another_layout_is_refused_by_name(name: str) -> None:
    model, optimizer = trained_with(make_of(f'pytorch_optimizer.{name}'), updates=2)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(CutError, match=rf'{name} of pytorch_optimizer .* create a new optimizer'):
        prune(model, optimizer)
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    again = make_of(f'pytorch_optimizer.{name}')
    prune(model, ())
    update(model, again(model))


def test_a_hessian_at_the_parameters_is_refused() -> None:
    model, optimizer = trained_with(make_of('timm.optim.Adahessian'))
    with pytest.raises(CutError, match='Adahessian of timm'):
        prune(model, optimizer)


class Square(nn.Module):
    """Both dimensions of the first layer have the same size, of which only one is cut."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(7, 7, bias=False), nn.Linear(7, 7, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.first(x).relu())


def cut_square(name: str, **options: Any) -> tuple[dict[str, Any], dict[str, Any], Any, Any]:
    """Return the states of the first layer before and after its cut, its network and optimizer."""
    torch.manual_seed(0)
    model = Square()
    optimizer = named(name)(model.parameters(), **options)

    for _ in range(2):
        optimizer.zero_grad()
        model(torch.rand(5, 7)).square().mean().backward()
        optimizer.step()
    before = copy.deepcopy(dict(optimizer.state[model.first.weight]))
    masks = {'first': torch.isin(torch.arange(7), KEPT)}
    easypruner.prune(model, masks, example_inputs=torch.rand(1, 7), optimizer=optimizer)
    after = copy.deepcopy(dict(optimizer.state[model.first.weight]))
    optimizer.zero_grad()
    model(torch.rand(5, 7)).square().mean().backward()
    optimizer.step()
    return before, after, model, optimizer


def test_square_preconditioners_of_a_square_layer_are_cut_by_their_dimension() -> None:
    name = 'pytorch_optimizer.Shampoo'
    before, after, _, _ = cut_square(name, preconditioning_compute_steps=2)
    assert torch.equal(after['pre_cond_0'], before['pre_cond_0'][KEPT][:, KEPT])
    assert torch.equal(after['pre_cond_1'], before['pre_cond_1'])
    assert torch.equal(after['inv_pre_cond_1'], before['inv_pre_cond_1'])
    assert torch.equal(after['momentum_buffer'], before['momentum_buffer'][KEPT])
    fourth = torch.linalg.matrix_power(after['inv_pre_cond_0'].double(), 4)
    product = fourth @ after['pre_cond_0'].double()
    assert torch.allclose(product, torch.eye(4).double(), atol=1e-2)


@pytest.mark.parametrize('name', ['AdaFactor', 'CAME'])
def test_rows_and_columns_of_a_square_layer_are_told_apart(name: str) -> None:
    before, after, _, _ = cut_square(f'pytorch_optimizer.{name}')
    assert torch.equal(after['exp_avg_sq_row'], before['exp_avg_sq_row'][KEPT])
    assert torch.equal(after['exp_avg_sq_col'], before['exp_avg_sq_col'])


def test_rows_and_columns_of_timm_are_told_apart() -> None:
    before, after, _, _ = cut_square('timm.optim.Adafactor', min_dim_size_to_factor=3)
    assert torch.equal(after['exp_avg_sq_row'], before['exp_avg_sq_row'][KEPT])
    assert torch.equal(after['exp_avg_sq_col'], before['exp_avg_sq_col'])


def test_rows_and_columns_change_places_with_the_largest_dimension() -> None:
    """Big Vision's Adafactor calls the largest dimension the rows."""
    name = 'timm.optim.AdafactorBigVision'
    before, after, model, optimizer = cut_square(name, min_dim_size_to_factor=3)
    assert after['exp_avg_sq_r'].shape == (4, 1) and after['exp_avg_sq_c'].shape == (1, 7)
    assert torch.equal(after['exp_avg_sq_r'], before['exp_avg_sq_r'][KEPT])
    assert torch.equal(after['exp_avg_sq_c'], before['exp_avg_sq_c'])
    state = optimizer.state[model.last.weight]  # (7, 4): before it was square
    assert state['exp_avg_sq_r'].shape == (1, 4) and state['exp_avg_sq_c'].shape == (7, 1)


@pytest.mark.parametrize(
    ('name', 'options', 'words'),
    [
        ('timm.optim.Adafactor', {'min_dim_size_to_factor': 4}, r'\(0, 1\) of \(7, 7\), but None'),
        ('timm.optim.AdafactorBigVision', {'min_dim_size_to_factor': 5}, 'but None of'),
        ('prodigyopt.Prodigy', {'slice_p': 2}, 'every 2th number'),
    ],
)
def test_a_layout_that_the_cut_would_change_is_refused(
    name: str, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(CutError, match=f'{words}.*create a new optimizer after the cut'):
        cut_square(name, **options)
