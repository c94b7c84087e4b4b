"""Random networks: after a trace, a network of any structure can be cut, counted and reloaded.

The oracles do not use the graph: the full network with readers zeroed, the full network with the
channels in another order, torch's count of operations, and a rebuilt network.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import easypruner
from easypruner.graph import ArchitectureRecord, ChannelGraph, Limits
from easypruner.graph.verify import compute_outputs, relative_error, zero_readers
from easypruner.strategies.budgets.ranking import keep_best
from tests.helpers.random_blocks import BLOCKS, Step
from tests.helpers.random_networks import Description, Task, descriptions, tasks

NUMBERS = 'the forward pass does not follow a cut'


def random_masks(graph: ChannelGraph, generator: torch.Generator, least: int) -> dict[str, Tensor]:
    """Return masks that keep a random share of each group, but at least ``least`` units."""
    masks = {}
    for name, group in graph.groups.items():
        share = torch.rand((), generator=generator)
        masks[name] = torch.rand(group.size, generator=generator) < share
        masks[name][torch.randperm(group.size, generator=generator)[:least]] = True
    return masks


@torch.no_grad()
def reorder(model: nn.Module, graph: ChannelGraph, generator: torch.Generator) -> None:
    """Put the units of every group in a random order, in all tensors that have them."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    for group in graph.groups.values():
        order = torch.randperm(group.size, generator=generator)
        for member in group.members:
            tensor = tensors[member.param]
            moved = tensor.index_select(member.dim, member.index[order].flatten())
            tensor.index_copy_(member.dim, member.index.flatten(), moved)


def counted(model: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[int, int]:
    """Return torch's own count: multiply-adds and parameters."""
    inputs = tuple(t.to('meta') for t in inputs)
    # Without gradients, attention would run a fused operation.
    with FlopCounterMode(display=False) as counter:
        copy.deepcopy(model).to('meta')(*inputs)
    return counter.get_total_flops() // 2, sum(p.numel() for p in model.parameters())


def cut_is_exact(
    graph: ChannelGraph, masks: dict[str, Tensor], inputs: tuple[Tensor, ...]
) -> ArchitectureRecord:
    """Prune the graph's model, compare its shapes and cost with the predicted ones."""
    model = graph.model
    shapes, predicted = [t.shape for t in compute_outputs(model, inputs)], graph.cost(masks)
    record = easypruner.prune(model, masks, graph=graph)
    assert [t.shape for t in compute_outputs(model, inputs)] == shapes
    assert (predicted.macs, predicted.params) == counted(model, inputs)
    assert graph.cost() == predicted
    return record


def reloads(
    description: Description, model: nn.Module, record: ArchitectureRecord, folder: Path
) -> None:
    """Compare a model with the one that is rebuilt from its saved record and weights."""
    record.save(folder / 'architecture.json')
    torch.save(model.state_dict(), folder / 'pruned.pth')
    again = easypruner.load_pruned(
        description.build, folder / 'pruned.pth', folder / 'architecture.json'
    )
    inputs = description.example_inputs()
    for expected, actual in zip(
        compute_outputs(model, inputs), compute_outputs(again, inputs), strict=True
    ):
        assert torch.equal(expected, actual)


def cut_is_equivalent(
    graph: ChannelGraph, masks: dict[str, Tensor], inputs: tuple[Tensor, ...]
) -> None:
    """Compare a copy of the graph's model, cut, with one that has the readers zeroed."""
    masks = {name: mask for name, mask in masks.items() if not graph.groups[name].mixed}
    twin = copy.deepcopy(graph)
    cut, zeroed = twin.model, copy.deepcopy(twin.model)
    zero_readers(zeroed, masks, twin)
    easypruner.prune(cut, masks, graph=twin)
    assert relative_error(compute_outputs(zeroed, inputs), compute_outputs(cut, inputs)) < 1e-9


def order_is_free(
    graph: ChannelGraph, generator: torch.Generator, inputs: tuple[Tensor, ...]
) -> None:
    """Compare a copy of the graph's model with one whose units are in another order."""
    reordered = copy.deepcopy(graph.model)
    reorder(reordered, graph, generator)
    assert (
        relative_error(compute_outputs(graph.model, inputs), compute_outputs(reordered, inputs))
        < 1e-9
    )


def check(description: Description, seed: int, folder: Path, **options: Any) -> None:
    """Check everything that a cut promises on a network, traced with the given options."""
    generator = torch.Generator().manual_seed(seed)
    # torch.einsum() sums over a single channel without a contraction that could be counted.
    least = 2 if any(step.kind in ('einsum', 'experts') for step in description.steps) else 1
    model, inputs = description.build(), description.example_inputs()
    graph = easypruner.trace(model, inputs, **options)
    if not description.keeps_numbers:
        assert not [entry for entry in graph.frozen if entry.reason.startswith(NUMBERS)]
    mixing = {operation for group in graph.groups.values() for operation in group.mixed}
    if not any(operation.startswith('convolution') for operation in mixing):
        # A convolution along channels is the only operation that knows which are neighbours.
        order_is_free(graph, generator, inputs)
    masks = random_masks(graph, generator, least)
    assert easypruner.verify(model, masks, inputs, graph=graph).passed
    first = cut_is_exact(graph, masks, inputs)
    reloads(description, model, first, folder)
    masks = random_masks(graph, generator, least)
    cut_is_equivalent(graph, masks, inputs)
    second = cut_is_exact(graph, masks, inputs)
    reloads(description, model, first.then(second), folder)


FIXED = settings(
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


# Two groups of three units, which must be equally wide for the code to work.
THREES = Description((Step('shuffle', 4, 0), Step('multihead', 4, 1)), 'image', 'mean', 'tensor')


# Two operations with the same role in their modules, whose tensors differ in dimensions.
UNLIKE = Description(
    (Step('bare_parameter', 4, 0), Step('expanded', 4, 0)), 'image', 'mean', 'tensor'
)


@example(description=THREES, seed=0)
@example(description=UNLIKE, seed=0)
@settings(FIXED, max_examples=25)
@given(description=descriptions(), seed=st.integers(0, 2**31))
def test_a_random_network_is_cut_right(description: Description, seed: int, tmp_path: Path) -> None:
    check(description, seed, tmp_path)


@pytest.mark.slow
@settings(FIXED, max_examples=400)
@given(description=descriptions(), seed=st.integers(0, 2**31))
def test_many_random_networks_are_cut_right(
    description: Description, seed: int, tmp_path: Path
) -> None:
    check(description, seed, tmp_path)


@pytest.mark.parametrize('kind', sorted(BLOCKS))
@settings(FIXED, max_examples=1)
@given(data=st.data(), seed=st.integers(0, 2**31))
def test_every_kind_of_block_is_cut_right(
    kind: str, data: st.DataObject, seed: int, tmp_path: Path
) -> None:
    check(data.draw(descriptions((kind, 'conv'))), seed, tmp_path)


@settings(FIXED, max_examples=5)
@given(task=tasks())
def test_a_random_transformer_is_cut_right(task: Task) -> None:
    model, inputs = task.description.build(), task.description.example_inputs()
    hooks = [dict(module._forward_hooks) for module in model.modules()]
    graph = easypruner.trace(model, inputs, **dict(task.options))
    assert [dict(module._forward_hooks) for module in model.modules()] == hooks
    generator = torch.Generator().manual_seed(task.seed)
    masks = {
        name: keep_best(
            torch.rand(group.size, generator=generator), (group.size + 1) // 2,
            graph.limits.get(name, Limits()),
        )
        for name, group in graph.groups.items()
    }  # fmt: skip
    assert not easypruner.verify(model, masks, inputs, graph=graph).failed
    predicted = graph.cost(masks)
    easypruner.prune(model, masks, graph=graph)
    assert predicted.params == sum(p.numel() for p in model.parameters())
    model(*inputs)


GROUPED = ('grouped', 'conv', 'depthwise', 'shuffle', 'residual', 'gathering_groups')


@settings(FIXED, max_examples=8)
@given(description=descriptions(GROUPED), seed=st.integers(0, 2**31))
def test_a_random_network_loses_whole_groups(
    description: Description, seed: int, tmp_path: Path
) -> None:
    check(description, seed, tmp_path, grouped='whole')


@pytest.mark.slow
@settings(FIXED, max_examples=200)
@given(description=descriptions(), seed=st.integers(0, 2**31))
def test_many_random_networks_lose_whole_groups(
    description: Description, seed: int, tmp_path: Path
) -> None:
    check(description, seed, tmp_path, grouped='whole')
