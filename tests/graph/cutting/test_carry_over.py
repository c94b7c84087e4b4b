"""A cut carries over optimizer states, averages of the weights and parametrized weights."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.model import ExponentialMovingAverage
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import easypruner
from easypruner.errors import CutError, PluginError
from easypruner.testing import example_inputs, randomized_network
from easypruner.testing.networks import Plain, Residual
from tests.helpers.snapshots import copied_state

KEPT = torch.tensor([0, 2, 3, 6])
MASKS = {'body.0.0': torch.isin(torch.arange(8), KEPT)}
CUTS = {
    'body.0.0.weight': 0, 'body.0.1.weight': 0, 'body.0.1.bias': 0, 'body.0.1.running_mean': 0,
    'body.0.1.running_var': 0, 'body.1.0.weight': 1,
}  # fmt: skip
"""The only dimension that each tensor of ``Plain`` loses channels in."""

OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    'sgd': lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
    'adam': lambda p: torch.optim.Adam(p, 0.01, amsgrad=True),
    'adamw': lambda p: torch.optim.AdamW(p, 0.01, amsgrad=True, foreach=True),
    'rmsprop': lambda p: torch.optim.RMSprop(p, 0.01, centered=True, momentum=0.9),
    'adagrad': lambda p: torch.optim.Adagrad(p, 0.01),
    'rprop': lambda p: torch.optim.Rprop(p, 0.01),
}


def sliced(name: str, tensor: Tensor) -> Tensor:
    return tensor.index_select(CUTS[name], KEPT) if name in CUTS else tensor


def step(model: nn.Module, *optimizers: torch.optim.Optimizer) -> None:
    model.zero_grad()
    model.train()(example_inputs()).square().mean().backward()
    for optimizer in optimizers:
        optimizer.step()


def trained(make: Callable[[Any], torch.optim.Optimizer]) -> tuple[nn.Module, Any]:
    model = randomized_network(Plain)
    optimizer = make([{'params': model.body.parameters()}, {'params': model.head.parameters()}])
    for _ in range(3):
        step(model, optimizer)
    return model, optimizer


def assert_same(a: Any, b: Any) -> None:
    if isinstance(a, Tensor):
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    else:
        assert a == b


@pytest.mark.parametrize('kind', OPTIMIZERS)
def test_a_step_after_the_cut_is_the_cut_of_a_step(kind: str) -> None:
    """These optimizers work on each element alone, so cutting and stepping commute."""
    model, optimizer = trained(OPTIMIZERS[kind])
    gradients = {name: torch.randn_like(p) for name, p in model.named_parameters()}
    twin, twin_optimizer = trained(OPTIMIZERS[kind])
    assert_same(copied_state(model, optimizer), copied_state(twin, twin_optimizer))

    before = [list(map(id, group['params'])) for group in optimizer.param_groups]
    easypruner.prune(model, MASKS, example_inputs=example_inputs(), optimizer=optimizer)
    assert [list(map(id, group['params'])) for group in optimizer.param_groups] == before
    for name, parameter in model.named_parameters():
        parameter.grad = sliced(name, gradients[name])
    for name, parameter in twin.named_parameters():
        parameter.grad = gradients[name]
    for one in (optimizer, twin_optimizer):
        one.step()
    for name, parameter in twin.named_parameters():
        assert torch.allclose(model.get_parameter(name), sliced(name, parameter), rtol=1e-6), name


def test_gradients_are_cut() -> None:
    model, _ = trained(OPTIMIZERS['sgd'])
    expected = {name: sliced(name, p.grad) for name, p in model.named_parameters()}
    easypruner.prune(model, MASKS, example_inputs=example_inputs())
    assert_same(expected, {name: p.grad for name, p in model.named_parameters()})


@pytest.mark.skipif(not hasattr(torch.optim, 'Adafactor'), reason='torch has it since 2.5')
def test_factored_moments_are_cut_where_they_are_not_summed() -> None:
    model, optimizer = trained(lambda p: torch.optim.Adafactor(p, 0.01))
    expected = {
        'row_var': optimizer.state[model.body[1][0].weight]['row_var'].index_select(1, KEPT),
        'col_var': optimizer.state[model.body[1][0].weight]['col_var'].index_select(1, KEPT),
    }
    easypruner.prune(model, MASKS, example_inputs=example_inputs(), optimizer=optimizer)
    state = optimizer.state[model.body[1][0].weight]
    assert_same(expected, {key: state[key] for key in expected})
    step(model, optimizer)


def test_several_optimizers() -> None:
    model = randomized_network(Plain)
    body = torch.optim.SGD(model.body.parameters(), 0.1, momentum=0.9)
    head = torch.optim.Adam(model.head.parameters(), 0.1)
    step(model, body, head)
    momentum = body.state[model.body[1][0].weight]['momentum_buffer'].index_select(1, KEPT)
    masks = {**MASKS, 'body.1.0': torch.arange(12) != 1}
    moment = head.state[model.head.weight]['exp_avg'][:, masks['body.1.0']]
    momentum = momentum[masks['body.1.0']]
    easypruner.prune(model, masks, example_inputs=example_inputs(), optimizer=[body, head])
    assert torch.equal(body.state[model.body[1][0].weight]['momentum_buffer'], momentum)
    assert torch.equal(head.state[model.head.weight]['exp_avg'], moment)
    step(model, body, head)


def test_a_state_that_cannot_be_cut_is_refused_before_anything_changes() -> None:
    model, optimizer = trained(OPTIMIZERS['sgd'])
    optimizer.state[model.body[0][1].weight]['preconditioner'] = torch.eye(8)
    before = copied_state(model, optimizer)
    with pytest.raises(CutError, match=r"SGD keeps 'preconditioner' of shape \(8, 8\)"):
        easypruner.prune(model, MASKS, example_inputs=example_inputs(), optimizer=optimizer)
    assert_same(before, copied_state(model, optimizer))


def test_training_continues_while_an_old_loss_is_alive() -> None:
    """Its autograd graph has nodes that expect gradients of the old shapes."""
    model = randomized_network(Plain).train()
    seen = []
    model.body[0][0].weight.register_hook(lambda gradient: seen.append(gradient.shape))
    model.body[0].register_forward_hook(lambda *_: seen.append('forward'))
    loss = model(example_inputs()).square().mean()
    loss.backward()
    easypruner.prune(model, MASKS, example_inputs=example_inputs())
    seen.clear()
    model.zero_grad()
    model(example_inputs()).square().mean().backward()
    assert seen == ['forward', (4, 3, 3, 3)]
    assert all(p.grad.shape == p.shape for p in model.parameters())
    assert loss.isfinite()


def averages(model: nn.Module) -> dict[str, nn.Module]:
    return {
        'torch': AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.5), use_buffers=True),
        'mmengine': ExponentialMovingAverage(model, momentum=0.5),
        'mmengine, buffers': ExponentialMovingAverage(model, momentum=0.5, update_buffers=True),
        'teacher': copy.deepcopy(model),
    }


@pytest.mark.parametrize('kind', ['torch', 'mmengine', 'mmengine, buffers', 'teacher'])
def test_averages_are_cut_along(kind: str) -> None:
    model = randomized_network(Plain)
    average = averages(model)[kind]
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    for _ in range(2):
        step(model, optimizer)
        if kind != 'teacher':
            average.update_parameters(model)
    inner = average if kind == 'teacher' else average.module
    expected = {name: sliced(name, t) for name, t in copy.deepcopy(inner.state_dict()).items()}
    assert not torch.equal(inner.head.weight, model.head.weight)
    easypruner.prune(
        model, MASKS, example_inputs=example_inputs(), optimizer=optimizer, copies=average
    )
    assert_same(expected, dict(inner.state_dict()))
    assert inner.body[0][0].out_channels == 4 and inner.body[0][1].num_features == 4
    inner.eval()(example_inputs())
    if kind == 'teacher':
        return
    step(model, optimizer)
    average.update_parameters(model)
    mean = (expected['body.0.0.weight'] + model.body[0][0].weight) / 2
    assert torch.allclose(inner.body[0][0].weight, mean, atol=1e-7)


def test_a_copy_of_another_network_is_refused_before_anything_changes() -> None:
    model, wider = randomized_network(Plain), randomized_network(Plain)
    wider.body[1][0] = nn.Conv2d(8, 13, 3)
    before = copied_state(model)
    for other, message in ((Residual(), 'is a Residual; expected a Plain'), (wider, '13, 8, 3, 3')):
        with pytest.raises(CutError, match=message):
            easypruner.prune(model, MASKS, example_inputs=example_inputs(), copies=[other])
    assert_same(before, copied_state(model))


class Stubborn(easypruner.LayerHandler):
    """Resizes the first networks, and then fails."""

    handles = (nn.BatchNorm2d,)
    willing = 10**9

    def resize(self, layer: nn.Module, shapes: object) -> None:
        Stubborn.willing -= 1
        if Stubborn.willing < 0:
            raise RuntimeError('no')


@pytest.mark.parametrize('willing', [0, 1])
def test_a_failing_handler_leaves_model_optimizer_and_copies_as_they_were(willing: int) -> None:
    model, optimizer = trained(OPTIMIZERS['adam'])
    average = AveragedModel(model)
    graph = easypruner.trace(model, example_inputs(), handlers=[Stubborn()])
    before, average_before = copied_state(model, optimizer), copied_state(average)
    Stubborn.willing = willing
    with pytest.raises(PluginError, match=r'Stubborn fails on .*RuntimeError: no'):
        easypruner.prune(model, MASKS, graph=graph, optimizer=optimizer, copies=average)
    Stubborn.willing = 10**9
    assert_same(before, copied_state(model, optimizer))
    assert_same(average_before, copied_state(average))
    assert graph.groups['body.0.0'].size == 8
    step(model, optimizer)


def test_a_failure_after_the_cut_undoes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    model, optimizer = trained(OPTIMIZERS['adam'])
    average = ExponentialMovingAverage(model, update_buffers=True)
    before, average_before = copied_state(model, optimizer), copied_state(average)
    calls = []

    def fail(*arguments: object) -> None:
        calls.append(model.body[0][0].weight.shape)
        raise RuntimeError('no')

    monkeypatch.setattr('easypruner.graph.cutting.surgery.refresh', fail)
    with pytest.raises(RuntimeError, match='no'):
        easypruner.prune(
            model, MASKS, example_inputs=example_inputs(), optimizer=optimizer, copies=average
        )
    assert calls == [(4, 3, 3, 3)], 'the cut was made when it failed'
    assert_same(before, copied_state(model, optimizer))
    assert_same(average_before, copied_state(average))
    step(model, optimizer)
    average.update_parameters(model)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision(dtype: torch.dtype) -> None:
    model = randomized_network(Plain).to(dtype)
    expected = {name: sliced(name, t) for name, t in copy.deepcopy(model.state_dict()).items()}
    easypruner.prune(model, MASKS, example_inputs=example_inputs().to(dtype))
    assert_same(expected, dict(model.state_dict()))
    assert all(p.dtype == dtype for p in model.parameters())


class Parametrized(nn.Module):
    """A convolution, a transposed one and two linear layers, each made by ``wrap``."""

    def __init__(self, wrap: Callable[[nn.Module], nn.Module]) -> None:
        super().__init__()
        self.first, self.second = wrap(nn.Conv2d(3, 8, 3)), wrap(nn.ConvTranspose2d(8, 6, 3))
        self.hidden, self.head = wrap(nn.Linear(6, 10)), wrap(nn.Linear(10, 5))

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(self.first(x).relu()).relu().mean((2, 3))
        return self.head(self.hidden(x).relu())


def along(dim: int | None, modern: bool) -> Callable[[nn.Module], nn.Module]:
    how = parametrizations.weight_norm if modern else nn.utils.weight_norm
    return lambda layer: how(layer, dim=dim)


@pytest.mark.filterwarnings('ignore:.*weight_norm.*:FutureWarning')
@pytest.mark.parametrize('modern', [True, False])
@pytest.mark.parametrize('dim', [0, 1, None])
def test_weight_norm_keeps_the_weights(modern: bool, dim: int | None, tmp_path: Path) -> None:
    def build() -> nn.Module:
        return Parametrized(along(dim, modern))

    model = randomized_network(build)
    graph = easypruner.trace(model, example_inputs())
    masks = {name: torch.arange(g.size) % 3 != 1 for name, g in graph.groups.items()}
    assert sorted(group.size for group in graph.groups.values()) == [6, 8, 10]
    result = easypruner.verify(model, masks, example_inputs())
    assert result.error < 1e-12 and not result.unchecked and result.removed_units == 8

    first, second, hidden = (torch.arange(n) % 3 != 1 for n in (8, 6, 10))
    expected = [
        model.first.weight[first],
        model.second.weight[first][:, second],
        model.hidden.weight[hidden][:, second],
        model.head.weight[:, hidden],
    ]
    record = easypruner.prune(model, masks, graph=graph)
    layers = [model.first, model.second, model.hidden, model.head]
    for layer, weight in zip(layers, expected, strict=True):
        assert torch.allclose(layer.weight, weight, rtol=1e-5)
    assert (model.first.in_channels, model.first.out_channels) == (3, 5)
    assert (model.second.in_channels, model.second.out_channels) == (5, 4)
    assert (model.hidden.in_features, model.hidden.out_features) == (4, 7)
    assert model.head.in_features == 7
    torch.save(model.state_dict(), tmp_path / 'pruned.pth')
    again = easypruner.load_pruned(build, tmp_path / 'pruned.pth', record).eval()
    assert torch.equal(again(example_inputs()), model(example_inputs()))


def test_weights_under_a_mask_of_torch_are_cut_with_it() -> None:
    def build() -> nn.Module:
        torch.manual_seed(1)
        return Parametrized(lambda layer: prune.l1_unstructured(layer, 'weight', 0.5))

    model = randomized_network(build)
    graph = easypruner.trace(model, example_inputs())
    masks = {name: torch.arange(g.size) % 2 == 0 for name, g in graph.groups.items()}
    assert easypruner.verify(model, masks, example_inputs()).error < 1e-12
    expected = model.second.weight.detach()[::2][:, ::2]
    easypruner.prune(model, masks, graph=graph)
    assert torch.equal(model.second.weight, expected)
    assert model.second.weight_mask.shape == model.second.weight_orig.shape == (4, 3, 3, 3)
    assert (model.second.in_channels, model.second.out_channels) == (4, 3)


def test_weights_computed_as_a_whole_are_frozen() -> None:
    model = randomized_network(
        lambda: nn.Sequential(
            nn.Conv2d(3, 8, 3),
            nn.ReLU(),
            parametrizations.orthogonal(nn.Conv2d(8, 6, 3)),
            nn.Conv2d(6, 9, 1),
            nn.Conv2d(9, 2, 1),
        )
    )
    graph = easypruner.trace(model, example_inputs())
    assert list(graph.groups) == ['3'], 'layers that do not touch it are pruned all the same'
    reasons = {(f.param, f.dim): f.reason for f in graph.frozen}
    assert 'orthogonal' in reasons['0.weight', 0] and 'orthogonal' in reasons['3.weight', 1]
    assert easypruner.verify(model, {'3': torch.arange(9) < 4}, example_inputs()).error < 1e-12


class PowerIteration(nn.Conv2d):
    """Spectral norm by hand, with a vector that is not trained."""

    def __init__(self, *args: int) -> None:
        super().__init__(*args)
        self.register_buffer('u', torch.randn(1, self.out_channels))

    def forward(self, x: Tensor) -> Tensor:
        weight, u = self.weight.flatten(1), self.u.clone()
        v = nn.functional.normalize(u @ weight)
        u = nn.functional.normalize(v @ weight.t())
        if self.training:
            self.u[:] = u.detach()
        return self._conv_forward(x, self.weight / (v @ weight.t() @ u.t()).squeeze(), self.bias)


@pytest.mark.filterwarnings('ignore:.*spectral_norm.*:FutureWarning')
@pytest.mark.parametrize(
    'build',
    [
        lambda *args: parametrizations.spectral_norm(nn.Conv2d(*args)),
        lambda *args: nn.utils.spectral_norm(nn.Conv2d(*args)),
        PowerIteration,
    ],
)
def test_vectors_of_a_spectral_norm_are_cut_with_the_weight(build: Callable) -> None:
    """The norm mixes channels, because it is that of the whole weight."""
    model = randomized_network(
        lambda: nn.Sequential(build(3, 8, 3), nn.ReLU(), build(8, 6, 3), nn.Conv2d(6, 2, 1))
    )
    for calls in ([], [lambda model: model.train()(example_inputs())]):
        graph = easypruner.trace(model, example_inputs(), calls=calls)
        assert [(g.size, bool(g.mixed)) for g in graph.groups.values()] == [(8, True), (6, True)]
        makers = [[m.dim for m in g.makers if m.param != '0.u'] for g in graph.groups.values()]
        assert all(0 in dims for dims in makers)
    sizes = {name: tensor.numel() for name, tensor in model.state_dict().items()}
    masks = {name: torch.arange(g.size) % 2 == 0 for name, g in graph.groups.items()}
    easypruner.prune(model, masks, graph=graph)
    for name, tensor in model.state_dict().items():
        cuts = 2 if name.startswith('2.') and tensor.dim() == 4 else 1
        whole = name == '3.bias' or (name.startswith('0.') and name.endswith('_v'))
        assert tensor.numel() * 2 ** (0 if whole else cuts) == sizes[name], name
    model.train()(example_inputs()).sum().backward()
    assert model.eval()(example_inputs()).isfinite().all()
