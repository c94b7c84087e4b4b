"""What a component may leave behind on a network: nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Before:
    """A network as it was.

    Attributes:
        tensors: name -> parameter or buffer, copied.
        marks: what else is to stay, such as the number of its hooks.
    """

    tensors: dict[str, Tensor]
    marks: dict[str, object]

    @classmethod
    def of(cls, model: nn.Module) -> Before:
        """Write down how a network is."""
        tensors = {name: tensor.detach().clone() for name, tensor in _tensors(model)}
        return cls(tensors, dict(_marks(model)))

    def check(self, model: nn.Module, case: str, gradients: bool = True) -> None:
        """Check that a network is still as it was.

        Args:
            model: the network.
            case: what was tried, for messages.
            gradients: whether there are to be as few as there were.

        Raises:
            AssertionError: it is not.
        """
        tensors = dict(_tensors(model))
        assert tensors.keys() == self.tensors.keys(), f'{case}: the network has other tensors'
        for name, tensor in tensors.items():
            same = torch.equal(tensor, self.tensors[name])
            assert same, f'{case}: {name} has changed'
        for what, now in _marks(model):
            if gradients or not what.startswith('gradient'):
                before = self.marks.get(what, 0)
                assert now == before, f'{case}: {what} is {now} afterwards, it was {before}'


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


def _marks(model: nn.Module) -> Iterator[tuple[str, object]]:
    for name, parameter in model.named_parameters():
        yield f'gradient of {name}', 'none' if parameter.grad is None else 'there'
        yield f'requires_grad of {name}', parameter.requires_grad
        yield f'number of hooks on {name}', len(parameter._backward_hooks or ())
    for path, module in model.named_modules():
        yield f'training mode of {path!r}', module.training
        for held, value in vars(module).items():
            if held.endswith('_hooks') and isinstance(value, dict):
                yield f'number of {held.strip("_").replace("_", " ")} on {path!r}', len(value)
