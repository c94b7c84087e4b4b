"""Checks that a component does not change a network."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from easypruner.graph.recording.inventory import named_tensors


@dataclass(frozen=True)
class Before:
    """The state of a network before a component runs.

    Attributes:
        tensors: name -> copy of a parameter or buffer.
        marks: description -> another property of the network, such as the number of hooks.
    """

    tensors: dict[str, Tensor]
    marks: dict[str, object]

    @classmethod
    def of(cls, model: nn.Module) -> Before:
        """Return the state of a network."""
        tensors = {name: tensor.detach().clone() for name, tensor in named_tensors(model).items()}
        return cls(tensors, dict(_marks(model)))

    def check(self, model: nn.Module, case: str, gradients: bool = True) -> None:
        """Check that a network is unchanged.

        Args:
            model: the network.
            case: the name of the trial, for messages.
            gradients: whether to check that no gradients were added.

        Raises:
            AssertionError: the network has changed.
        """
        tensors = named_tensors(model)
        assert tensors.keys() == self.tensors.keys(), f'{case}: the network has other tensors'
        for name, tensor in tensors.items():
            same = torch.equal(tensor, self.tensors[name])
            assert same, f'{case}: {name} has changed'
        for what, now in _marks(model):
            if gradients or not what.startswith('gradient'):
                before = self.marks.get(what, 0)
                assert now == before, f'{case}: {what} is {now}; expected {before}, as before'


def _marks(model: nn.Module) -> Iterator[tuple[str, object]]:
    for name, parameter in model.named_parameters():
        yield f'gradient of {name}', 'missing' if parameter.grad is None else 'set'
        yield f'requires_grad of {name}', parameter.requires_grad
        yield f'number of hooks on {name}', len(parameter._backward_hooks or ())
    for path, module in model.named_modules():
        yield f'training mode of {path!r}', module.training
        for name, value in vars(module).items():
            if name.endswith('_hooks') and isinstance(value, dict):
                yield f'number of {name.strip("_").replace("_", " ")} on {path!r}', len(value)
