"""The states of torch's optimizers are cut; others need a handler, or are refused by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch
from mmengine.optim import OptimWrapper
from torch import Tensor, nn
from torch.optim import Optimizer

import easypruner
from easypruner import OptimizerHandler
from easypruner.errors import CutError, PluginError
from easypruner.graph.cutting.optimizer_handler import elementwise
from easypruner.testing.optimizer_check import KEPT, MASKS, slice_by_shape
from tests.helpers.optimizer_twins import check_twin, prune, trained_with, update
from tests.helpers.snapshots import copied_state

VARIANTS: dict[str, list[dict[str, Any]]] = {
    'Adam': [{}, {'amsgrad': True}],
    'AdamW': [{}, {'amsgrad': True, 'foreach': True}],
    'RMSprop': [{}, {'centered': True, 'momentum': 0.9}],
    'SGD': [{'lr': 0.1}, {'lr': 0.1, 'momentum': 0.9, 'nesterov': True}],
}
SPECIAL = {'LBFGS', 'SparseAdam'}
EVERY = sorted(
    name
    for name, cls in vars(torch.optim).items()
    if isinstance(cls, type) and issubclass(cls, Optimizer) and cls is not Optimizer
)


@pytest.mark.parametrize(
    ('name', 'options'),
    [(n, options) for n in EVERY if n not in SPECIAL for options in VARIANTS.get(n, [{}])],
)
def test_every_optimizer_of_torch_goes_on_like_a_twin(name: str, options: dict[str, Any]) -> None:
    dims = 2 if name == 'Muon' else 0
    cls = getattr(torch.optim, name)
    check_twin(
        (), lambda m: cls([p for p in m.parameters() if not dims or p.dim() == dims], **options)
    )


def test_sparse_adam_goes_on_with_the_state_that_is_left() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(9, 7, sparse=True), nn.Linear(7, 3))
    optimizer = torch.optim.SparseAdam(model[0].parameters())
    words = torch.tensor([[0, 4, 8]])
    masks = {'0': torch.isin(torch.arange(7), KEPT)}

    def train() -> None:
        optimizer.zero_grad()
        model(words).square().mean().backward()
        optimizer.step()

    train()
    state = {key: optimizer.state[model[0].weight][key] for key in ('exp_avg', 'exp_avg_sq')}
    expected = {key: value[:, KEPT] for key, value in state.items()}
    easypruner.prune(model, masks, example_inputs=words, optimizer=optimizer)
    new = optimizer.state[model[0].weight]
    assert all(torch.equal(new[key], value) for key, value in expected.items())
    train()


class Momentum(Optimizer):
    """An optimizer of a user, with all kinds of states."""

    def __init__(self, parameters: Any, keep: Callable[[Tensor], Any] = torch.clone) -> None:
        super().__init__(parameters, {'lr': 0.1})
        self.keep = keep

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        for parameter in self.param_groups[0]['params']:
            kept = self.state[parameter].setdefault('mean', self.keep(parameter.grad))
            if isinstance(kept, Tensor):
                kept.lerp_(parameter.grad, 0.1)
                parameter.sub_(kept, alpha=0.1)


class MomentumHandler(OptimizerHandler):
    handles = (Momentum,)
    layout: ClassVar = {'mean': elementwise}


class Preconditioner:
    def __init__(self, gradient: Tensor) -> None:
        self.statistics = [gradient.clone()]


KINDS: dict[str, Callable[[Tensor], Any]] = {
    'tensor': torch.clone,
    'list': lambda gradient: [gradient.clone()],
    'dict': lambda gradient: {'left': gradient.clone()},
    'object': Preconditioner,
}


@pytest.mark.parametrize('kind', KINDS)
def test_an_optimizer_without_a_handler_is_refused_by_name(kind: str) -> None:
    model, optimizer = trained_with(lambda m: Momentum(m.parameters(), KINDS[kind]))
    before = copied_state(model)
    advice = r"Momentum of tests .*'first\.weight'; create a new optimizer after the cut, or write"
    with pytest.raises(CutError, match=advice):
        prune(model, optimizer)
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())


def test_lbfgs_is_refused_after_its_first_step_only() -> None:
    """Its history is in the state of the first parameter, whether or not that one is cut."""
    make = lambda m: torch.optim.LBFGS([m.head.bias, m.norm.weight])  # noqa: E731
    model, optimizer = trained_with(make)
    with pytest.raises(CutError, match='LBFGS has a state whose layout is not known'):
        prune(model, optimizer)
    model, optimizer = trained_with(make, updates=0)
    prune(model, optimizer)
    update(model, optimizer)


def test_an_optimizer_of_parameters_that_are_not_cut_needs_no_handler() -> None:
    model, optimizer = trained_with(lambda m: Momentum(m.head.parameters()))
    prune(model, optimizer)
    update(model, optimizer)


def test_a_state_outside_of_the_parameters_states_is_noticed() -> None:
    model, optimizer = trained_with(lambda m: Momentum(m.parameters()), updates=0)
    optimizer.slow = [p.detach().clone() for p in model.parameters()]
    with pytest.raises(CutError, match='Momentum'):
        prune(model, optimizer)


def test_a_handler_makes_an_optimizer_follow() -> None:
    model, optimizer = trained_with(lambda m: Momentum(m.parameters()))
    names = {id(p): name for name, p in model.named_parameters()}
    expected = {names[id(p)]: slice_by_shape(names[id(p)], s) for p, s in optimizer.state.items()}
    prune(model, optimizer, optimizer_handlers=[MomentumHandler()])
    for name, state in expected.items():
        assert torch.equal(optimizer.state[model.get_parameter(name)]['mean'], state['mean'])
    update(model, optimizer)


class Heavy(torch.optim.SGD):
    """A subclass has the handler of its base."""


def test_a_subclass_is_handled_and_its_own_entries_are_refused() -> None:
    make = lambda m: Heavy(m.parameters(), 0.1, momentum=0.9)  # noqa: E731
    check_twin((), make)
    model, optimizer = trained_with(make)
    optimizer.state[model.norm.weight]['count'] = torch.tensor(3.0)
    optimizer.state[model.first.weight]['history'] = [torch.zeros(7, 3, 3, 2)]
    with pytest.raises(CutError, match=r"Heavy of tests keeps 'history' for 'first\.weight'"):
        prune(model, optimizer)


class Slow:
    """Wraps an optimizer, and has a state of its own. It is not a torch.optim.Optimizer."""

    def __init__(self, base: Optimizer) -> None:
        self.base, self.state = base, {}

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return self.base.param_groups

    def zero_grad(self) -> None:
        self.base.zero_grad()

    @torch.no_grad()
    def step(self) -> None:
        self.base.step()
        for parameter in self.param_groups[0]['params']:
            slow = self.state.setdefault(parameter, {'slow': parameter.detach().clone()})['slow']
            parameter.copy_(slow.lerp_(parameter, 0.5))


class SlowHandler(OptimizerHandler):
    handles = (Slow,)
    layout: ClassVar = {'slow': elementwise}
    inner = ('base',)


def test_wrapped_optimizers_are_cut_along() -> None:
    make = lambda m: Slow(torch.optim.SGD(m.parameters(), 0.1, momentum=0.9))  # noqa: E731
    check_twin(SlowHandler(), make)
    model, optimizer = trained_with(make)
    with pytest.raises(CutError, match='Slow of tests'):
        prune(model, optimizer)
    model, optimizer = trained_with(lambda m: Slow(Momentum(m.parameters())))
    with pytest.raises(CutError, match='Momentum of tests'):
        prune(model, optimizer, optimizer_handlers=[SlowHandler()])


def test_an_entry_of_another_size_than_its_layout_is_refused() -> None:
    model, optimizer = trained_with(lambda m: torch.optim.SGD(m.parameters(), 0.1, momentum=0.9))
    optimizer.state[model.norm.weight]['momentum_buffer'] = torch.zeros(14)
    with pytest.raises(CutError, match=r'shape \(14,\) for .*norm\.weight.*; expected \(7\)'):
        prune(model, optimizer)


def test_a_failing_handler_is_named() -> None:
    class Failing(MomentumHandler):
        def cut_entry(self, key: str, value: Any, cut: Any) -> Any:
            return value.no_such_method()

    model, optimizer = trained_with(lambda m: Momentum(m.parameters()))
    with pytest.raises(PluginError, match=r"Failing fails on 'mean' of Momentum .*test_optimizer"):
        prune(model, optimizer, optimizer_handlers=[Failing()])
    Failing.handles = Momentum  # type: ignore[assignment]
    with pytest.raises(PluginError, match=r'expected a tuple of optimizer types'):
        prune(model, optimizer, optimizer_handlers=[Failing()])


def test_what_is_not_an_optimizer_is_refused() -> None:
    model, _ = trained_with(lambda m: None, updates=0)
    with pytest.raises(CutError, match='got the optimizer 3, of type int; expected an optimizer'):
        prune(model, 3)
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), 0.1))
    with pytest.raises(CutError, match=r'of type OptimWrapper; .*: give its \.optimizer'):
        prune(model, wrapper)
    assert model.first.weight.shape[0] == len(MASKS['first'])
