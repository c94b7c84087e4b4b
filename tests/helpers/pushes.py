"""What tests of regularizers share: networks in double precision, and what is added to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

import easypruner
from easypruner import Masks, Progress, Regularizer
from easypruner.graph import ChannelGraph
from easypruner.testing import example_inputs, randomized_network

STRENGTH = 0.3
FIRST, OTHERS = 0.4, 1.5
"""Factors of the strength of a network's first group, and of the others."""
RAMP, GRAD_SCALE = 0.25, 8.0
LR = 0.7
PROGRESS = Progress(3, 12, torch.tensor(GRAD_SCALE, dtype=torch.float64), lr=LR)
"""A quarter of the way: a linear schedule has a factor of RAMP there."""


@dataclass(frozen=True)
class Case:
    """A network of its own, with masks that remove about half of it.

    Attributes:
        model: in double precision, scales of either sign and some of them zero.
        graph: of it.
        masks: True = keep.
        strengths: ``group_strengths`` that give FIRST to the first group and OTHERS to the rest.
    """

    model: nn.Module
    graph: ChannelGraph
    masks: Masks
    strengths: dict[str, float]

    def factor(self, group: str) -> float:
        return FIRST if group == next(iter(self.graph.groups)) else OTHERS

    def scales(self) -> dict[str, nn.Module]:
        """Return the batch norms by the names of their scales."""
        return {
            f'{path}.weight': module
            for path, module in self.model.named_modules()
            if isinstance(module, nn.BatchNorm2d)
        }

    def channels(self, name: str) -> list[tuple[float, bool]]:
        """Return factor and whether it is kept, of each channel of a batch norm."""
        found = [(1.0, True)] * len(self.graph.parameter(name))
        for group_name, group in self.graph.groups.items():
            for member in group.members:
                if member.param == name:
                    for unit, indices in enumerate(member.index.tolist()):
                        for index in indices:
                            kept = bool(self.masks[group_name][unit])
                            found[index] = (self.factor(group_name), kept)
        return found

    def units(self, over: str) -> Iterator[tuple[str, int, list[Tensor]]]:
        """Yield group, number and all slices of parameters of each unit."""
        for name, group in self.graph.groups.items():
            members = group.producers if over == 'producers' else group.members
            for unit in range(group.size):
                yield (
                    name,
                    unit,
                    [
                        self.graph.parameter(member.param).select(member.dim, index)
                        for member in members
                        if not member.operand.endswith(('running_mean', 'running_var'))
                        for index in member.index[unit].tolist()
                    ],
                )


def make_case(build: Callable[[], nn.Module], seed: int = 0) -> Case:
    model = randomized_network(build).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight[::3] *= -1
                module.weight[1] = 0
    graph = easypruner.trace(model, example_inputs().double())
    masks = {}
    for name, group in graph.groups.items():
        masks[name] = torch.rand(group.size, generator=generator) < 0.5
        masks[name][0], masks[name][-1] = True, group.size == 1
    first = next(iter(graph.groups))
    return Case(model, graph, Masks(masks), {first: FIRST, '*': OTHERS})


def make_narrow_case(build: Callable[[], nn.Module]) -> Case:
    """Return a network whose first group has a single unit left."""
    given = make_case(build)
    name, group = next(iter(given.graph.groups.items()))
    one = Masks({name: torch.arange(group.size) == 0})
    easypruner.prune(given.model, one, graph=given.graph)
    assert given.graph.groups[name].size == 1
    masks = {n: given.masks[n] for n in given.graph.groups} | {name: torch.tensor([False])}
    return replace(given, masks=Masks(masks))


def added_gradients(
    regularizer: Regularizer,
    case: Case,
    masks: Masks | None = None,
    progress: Progress = PROGRESS,
) -> dict[str, Tensor]:
    """Return what the regularizer adds to the gradient of each parameter."""
    generator = torch.Generator().manual_seed(1)
    before = {}
    for name, parameter in case.model.named_parameters():
        before[name] = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
        parameter.grad = before[name].clone()
    values = {name: p.detach().clone() for name, p in case.model.named_parameters()}
    regularizer.add_gradient(case.graph, masks, progress)
    for name, parameter in case.model.named_parameters():
        assert torch.equal(parameter, values[name]), f'{name} itself has changed'
    return {name: p.grad - before[name] for name, p in case.model.named_parameters()}


def penalty_gradients(penalty: Tensor, model: nn.Module) -> dict[str, Tensor]:
    """Return the gradient of a penalty by torch's own differentiation."""
    named = dict(model.named_parameters())
    gradients = torch.autograd.grad(penalty, list(named.values()), allow_unused=True)
    return {
        name: torch.zeros_like(p) if gradient is None else gradient
        for (name, p), gradient in zip(named.items(), gradients, strict=True)
    }


def assert_same(
    actual: Mapping[str, Tensor], expected: Mapping[str, Tensor], factor: float
) -> None:
    assert any(bool(gradient.any()) for gradient in expected.values()), 'nothing to compare'
    for name, gradient in expected.items():
        torch.testing.assert_close(
            actual[name],
            factor * gradient,
            rtol=1e-9,
            atol=1e-11,
            msg=lambda m, n=name: f'{n}: {m}',
        )
