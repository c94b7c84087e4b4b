"""Wrapped models: the network inside is pruned, under its own names."""

from __future__ import annotations

import copy
import socket
from collections.abc import Callable, Iterator
from importlib import import_module

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

import easypruner
from easypruner.errors import CutError, TraceError
from easypruner.testing import example_inputs, randomized_network
from easypruner.testing.networks import Plain
from tests.helpers.networks import traced_network

MASKS = {'body.0.0': torch.arange(8) % 2 == 0, 'body.1.0': torch.arange(12) < 7}


@pytest.fixture
def process_group() -> Iterator[None]:
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    dist.init_process_group('gloo', init_method=f'tcp://127.0.0.1:{port}', rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


def pruned() -> nn.Module:
    model = randomized_network(Plain)
    easypruner.prune(model, MASKS, example_inputs=example_inputs())
    return model


def assert_traced_and_verified(wrapped: nn.Module, inner: nn.Module) -> None:
    plain = traced_network(Plain)
    graph = easypruner.trace(wrapped, example_inputs())
    assert graph.model is inner
    assert list(graph.groups) == list(plain.groups) and graph.cost() == plain.cost()
    result = easypruner.verify(wrapped, MASKS, example_inputs())
    assert result.error < 1e-12 and result.removed_units == 9


def assert_pruned(wrapped: nn.Module, inner: nn.Module) -> None:
    """What is left computes the same as a plain model that was pruned, and can be trained."""
    record = easypruner.prune(wrapped, MASKS, example_inputs=example_inputs())
    expected = pruned()
    assert all(torch.equal(inner.state_dict()[n], t) for n, t in expected.state_dict().items())
    assert torch.allclose(wrapped(example_inputs()), expected(example_inputs()), atol=1e-6)
    assert not any(name.startswith(('module.', '_orig_mod.')) for name in record.tensors)
    wrapped(example_inputs()).sum().backward()
    assert inner.body[0][0].weight.grad.shape == (4, 3, 3, 3)


def test_data_parallel() -> None:
    inner = randomized_network(Plain)
    assert_traced_and_verified(DataParallel(inner), inner)
    assert_pruned(DataParallel(inner), inner)


def test_distributed_data_parallel_is_traced_but_not_cut(process_group: None) -> None:
    inner = randomized_network(Plain)
    wrapped = DistributedDataParallel(inner)
    assert_traced_and_verified(wrapped, inner)
    before = copy.deepcopy(inner.state_dict())
    for model in (wrapped, torch.compile(wrapped, backend='eager')):
        with pytest.raises(CutError, match=r'prune its \.module .* wrap that anew'):
            easypruner.prune(model, MASKS, example_inputs=example_inputs())
    assert all(torch.equal(before[name], tensor) for name, tensor in inner.state_dict().items())
    easypruner.prune(wrapped.module, MASKS, example_inputs=example_inputs())
    again = DistributedDataParallel(inner)
    again(example_inputs()).sum().backward()
    assert inner.body[0][0].weight.grad.shape == (4, 3, 3, 3)


def test_parts_in_distributed_data_parallel_are_refused(process_group: None) -> None:
    model = randomized_network(Plain)
    model.body = DistributedDataParallel(model.body)
    with pytest.raises(TraceError, match='body is wrapped in DistributedDataParallel'):
        easypruner.trace(model, example_inputs())


def _fully_shard() -> Callable[..., nn.Module]:
    # torch.distributed.fsdp has it since torch 2.6.
    name = 'torch.distributed.fsdp'
    if not hasattr(import_module(name), 'fully_shard'):
        name = 'torch.distributed._composable.fsdp'
    return import_module(name).fully_shard


@pytest.mark.parametrize('part', ['', 'body.0'])
@pytest.mark.parametrize('evaluated', [False, True])
def test_sharded_models_are_refused(process_group: None, part: str, evaluated: bool) -> None:
    """After a forward pass without gradients the parameters are whole, as if not sharded."""
    if evaluated and not hasattr(import_module('torch.distributed.fsdp'), 'fully_shard'):
        pytest.skip('before torch 2.6, a forward pass of a sharded model needs a GPU')
    model = randomized_network(Plain)
    graph = easypruner.trace(model, example_inputs())
    _fully_shard()(model.get_submodule(part), mesh=dist.init_device_mesh('cpu', (1,)))
    if evaluated:
        with torch.no_grad():
            model.eval()(example_inputs())
    where = part or 'the model'
    advice = rf'{where} is sharded .* it is a FSDP.*; prune the model before fully_shard\(\)'
    with pytest.raises(TraceError, match=advice):
        easypruner.trace(model, example_inputs())
    with pytest.raises(CutError, match=advice):
        easypruner.prune(model, MASKS, graph=graph)
    with pytest.raises(TraceError, match=advice):
        easypruner.verify(model, MASKS, example_inputs())


@pytest.mark.parametrize('whole', [False, True])
def test_wrappers_that_shard_are_refused(process_group: None, whole: bool) -> None:
    fsdp = import_module('torch.distributed.fsdp').FullyShardedDataParallel
    model = randomized_network(Plain)
    device = torch.device('cpu')
    if whole:
        model = fsdp(model, device_id=device)
    else:
        model.body[1] = fsdp(model.body[1], device_id=device, use_orig_params=True)
    for name, error in ((easypruner.trace, TraceError), (easypruner.prune, CutError)):
        given = [MASKS] if error is CutError else []
        with pytest.raises(error, match=r'is a FullyShardedDataParallel of torch\.distributed'):
            name(model, *given, example_inputs=example_inputs())
    other = randomized_network(Plain)
    with pytest.raises(CutError, match='is a FullyShardedDataParallel'):
        easypruner.prune(other, MASKS, example_inputs=example_inputs(), copies=model)


def test_sharded_tensors_are_refused(process_group: None) -> None:
    """Tensor parallelism leaves the types of modules as they are."""
    tensors = import_module('torch.distributed.tensor')
    if not hasattr(tensors, 'distribute_tensor'):
        tensors = import_module('torch.distributed._tensor')
    model = randomized_network(Plain)
    graph = easypruner.trace(model, example_inputs())
    mesh = dist.init_device_mesh('cpu', (1,))
    weight = tensors.distribute_tensor(model.head.weight.detach(), mesh, [tensors.Shard(0)])
    model.head.weight = nn.Parameter(weight)
    with pytest.raises(TraceError, match=r'head\.weight is sharded over processes \(a DTensor\)'):
        easypruner.trace(model, example_inputs())
    with pytest.raises(CutError, match=r'head\.weight is sharded'):
        easypruner.prune(model, MASKS, graph=graph)


@pytest.mark.slow
def test_compiled() -> None:
    """A model that was compiled before the cut is compiled again after it: its shapes changed."""
    inner = randomized_network(Plain)
    wrapped = torch.compile(inner, backend='eager')
    wrapped(example_inputs())
    assert_traced_and_verified(wrapped, inner)
    assert_pruned(wrapped, inner)


@pytest.mark.slow
@pytest.mark.parametrize('part', ['', 'body.0'])
def test_compiled_in_place(part: str) -> None:
    model = randomized_network(Plain)
    model.get_submodule(part).compile(backend='eager')
    model(example_inputs())
    assert_traced_and_verified(model, model)
    assert_pruned(model, model)


@pytest.mark.filterwarnings('ignore:.*torch.jit:FutureWarning')
def test_scripted_and_traced_models_are_refused() -> None:
    model = randomized_network(Plain)
    for compiled in (torch.jit.script(model), torch.jit.trace(model, example_inputs())):
        for call in (easypruner.trace, lambda m, x: easypruner.verify(m, MASKS, x)):
            with pytest.raises(TraceError, match=r'TorchScript module \(Plain\)'):
                call(compiled, example_inputs())
        with pytest.raises(TraceError, match='TorchScript'):
            easypruner.prune(compiled, MASKS, graph=easypruner.trace(model, example_inputs()))
    body, traced = model.body, torch.jit.trace(model, example_inputs()).body
    for part in (torch.jit.script(body), traced, torch.jit.trace(body, example_inputs())):
        model.body = part
        with pytest.raises(TraceError, match='body is a TorchScript module'):
            easypruner.trace(model, example_inputs())


@pytest.mark.parametrize(
    ('given', 'text'),
    [
        (Plain, r'the class Plain; expected a torch\.nn\.Module: build it, as in Plain\(\)'),
        (randomized_network, 'the function randomized_network'),
        (None, 'None, a NoneType'),
        ('resnet50', "'resnet50', a str"),
    ],
)
def test_a_value_that_is_not_a_network_is_refused(given: object, text: str) -> None:
    for call in (
        lambda: easypruner.trace(given, example_inputs()),
        lambda: easypruner.verify(given, MASKS, example_inputs()),
        lambda: easypruner.prune(given, MASKS, example_inputs=example_inputs()),
        lambda: traced_network(Plain).on(given),
    ):
        with pytest.raises(TraceError, match=f'the model is {text}'):
            call()


def test_inference_mode() -> None:
    """There composite operations reach the tape whole unless it is left for the trace."""

    def build() -> nn.Module:
        convolutions = nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.Flatten()
        return nn.Sequential(
            *convolutions, nn.Linear(8 * 36, 10), nn.LayerNorm(10), nn.Linear(10, 5)
        )

    expected = traced_network(build)
    with torch.inference_mode():
        graph = traced_network(build)
        assert {n: g.size for n, g in graph.groups.items()} == {
            n: g.size for n, g in expected.groups.items()
        }
        assert graph.cost() == expected.cost()
        result = easypruner.verify(randomized_network(Plain), MASKS, example_inputs())
        assert result.error < 1e-12 and result.removed_units == 9


def test_a_model_cut_in_inference_mode_can_be_trained() -> None:
    model = randomized_network(Plain)
    with torch.inference_mode():
        easypruner.prune(model, MASKS, example_inputs=example_inputs())
    model(example_inputs()).sum().backward()
    assert model.body[0][0].weight.grad.shape == (4, 3, 3, 3)


def test_a_model_made_in_inference_mode_is_cut() -> None:
    with torch.inference_mode():
        model = Plain().eval()
        easypruner.prune(model, MASKS, example_inputs=example_inputs())
        assert model(example_inputs()).shape == (2, 5)
        assert model.body[0][0].weight.shape == (4, 3, 3, 3)


@pytest.mark.parametrize('training', [True, False])
def test_modes_and_flags_are_kept(training: bool) -> None:
    model = randomized_network(Plain).requires_grad_(False).train(training)
    with torch.no_grad():
        graph = easypruner.trace(model, example_inputs())
        easypruner.prune(model, MASKS, graph=graph)
    assert all(module.training is training for module in model.modules())
    assert not any(p.requires_grad for p in model.parameters())
    assert all(torch.equal(model.state_dict()[n], t) for n, t in pruned().state_dict().items())
