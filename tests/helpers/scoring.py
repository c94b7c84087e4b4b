"""What tests of mask sources share: data with a loss, networks, oracles."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

import easypruner
from easypruner import Context
from easypruner.graph import ChannelGraph
from easypruner.testing import example_inputs, randomized_network

BATCH = 4


def labelled_batches(
    count: int = 2, dtype: torch.dtype = torch.float64
) -> list[tuple[Tensor, Tensor]]:
    """Return batches of random images and labels."""
    generator = torch.Generator().manual_seed(3)
    return [
        (
            torch.randn(BATCH, 3, 8, 8, generator=generator).to(dtype),
            torch.randint(0, 5, (BATCH,), generator=generator),
        )
        for _ in range(count)
    ]


def cross_entropy(model: nn.Module, batch: Any) -> Tensor:
    images, labels = batch
    return nn.functional.cross_entropy(model(images), labels)


def labelled_context(count: int = 2, dtype: torch.dtype = torch.float64, seed: int = 0) -> Context:
    """Return a context that has labelled batches and a loss."""
    batches = labelled_batches(count, dtype)
    return Context(seed=seed, batches=lambda: batches, loss=cross_entropy)


def signed_graph(build: Callable[[], nn.Module]) -> ChannelGraph:
    """Return the graph of a network in double precision, its norm scales of either sign."""
    model = randomized_network(build).double()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight[::3] *= -1
    return easypruner.trace(model, example_inputs().double())


def iterate_slices(tensor: Tensor, dim: int, indices: Tensor) -> Iterator[Tensor]:
    """Yield what a tensor has at each of some indices of a dimension."""
    for index in indices.tolist():
        yield tensor.select(dim, index)


def unit_total(graph: ChannelGraph, values: dict[str, Tensor], members: Any, unit: int) -> float:
    """Add up, element by element, the values at a unit's indices in some members."""
    total = 0.0
    for member in members:
        for part in iterate_slices(values[member.param], member.dim, member.index[unit]):
            for value in part.flatten().tolist():
                total += value
    return total


def parameters_of(graph: ChannelGraph, group: str) -> list[Any]:
    """Return the members of a group that are parameters."""
    names = dict(graph.model.named_parameters())
    return [member for member in graph.groups[group].members if member.param in names]


def gradients_of(model: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    """Return the gradients of a loss by plain backward on a model of one's own."""
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters()}


def single_unit_graph(build: Callable[[], nn.Module]) -> ChannelGraph:
    """Return the graph of a network whose first group has a single unit left."""
    graph = signed_graph(build)
    name, group = next(iter(graph.groups.items()))
    easypruner.prune(graph.model, {name: torch.arange(group.size) == 0}, graph=graph)
    assert graph.groups[name].size == 1
    return graph


def equal_units_graph(build: Callable[[], nn.Module]) -> ChannelGraph:
    """Return the graph of a network all of whose units are the same."""
    graph = signed_graph(build)
    with torch.no_grad():
        for module in graph.model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.reset_running_stats()
        for parameter in graph.model.parameters():
            parameter.fill_(0.25)
        for module in graph.model.modules():
            if isinstance(module, nn.Linear) and module.out_features == 5:
                # The classes must differ for the loss to have a slope at all.
                module.weight.copy_(torch.arange(5.0)[:, None].expand_as(module.weight) / 10)
    return graph


def state_of(model: nn.Module) -> dict[str, Any]:
    """Return all that a source must leave as it was."""
    return {
        'values': {name: (id(t), t._version) for name, t in tensors_of(model).items()},
        'copies': copy.deepcopy({n: t.detach() for n, t in tensors_of(model).items()}),
        'requires': [p.requires_grad for p in model.parameters()],
        'gradients': [None if p.grad is None else (id(p.grad), p.grad._version)
                      for p in model.parameters()],
        'modes': [module.training for module in model.modules()],
        'attributes': [{name: id(value) for name, value in vars(module).items()}
                       for module in model.modules()],
    }  # fmt: skip


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def assert_left_alone(model: nn.Module, before: dict[str, Any]) -> None:
    after = state_of(model)
    copies = before.pop('copies'), after.pop('copies')
    assert after == before
    assert all(torch.equal(t, copies[1][name]) for name, t in copies[0].items())
