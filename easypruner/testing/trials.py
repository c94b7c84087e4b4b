"""Trials of components on tiny networks: refusals, checks of masks, unchanged networks."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from easypruner.base.describe import describe
from easypruner.errors import EasyPrunerError, MaskError, PluginError
from easypruner.graph import ChannelGraph, Masks
from easypruner.graph.recording.inventory import named_tensors
from easypruner.testing.networks import TinyNetwork

Networks = TinyNetwork | Iterable[TinyNetwork]
"""One network, or several."""

_Result = TypeVar('_Result')


def as_networks(networks: Networks) -> tuple[TinyNetwork, ...]:
    """Return networks as a tuple.

    Raises:
        EasyPrunerError: there are no networks, or one of them is something else.
    """
    found = (networks,) if isinstance(networks, TinyNetwork) else tuple(networks)
    for network in found:
        if not isinstance(network, TinyNetwork):
            raise EasyPrunerError(
                f'{network!r} is not a tiny network; expected some of '
                "easypruner.testing.NETWORKS, as network('plain')"
            )
    if not found:
        raise EasyPrunerError('got no network; leave out networks to try all of them')
    return found


class Refusals:
    """Collects the trials that a component refuses. It may refuse some, but not all.

    A component refuses a network when it raises an EasyPrunerError itself. An error that comes from
    an invalid result of the component, such as masks of a wrong type, is not a refusal.
    """

    def __init__(self) -> None:
        self._trials = 0
        self._messages: list[str] = []

    def attempt(self, case: str, function: Callable[..., _Result], *args: object) -> list[_Result]:
        """Call a function of a component.

        Args:
            case: the name of the trial, for messages.
            function: the function to call.
            *args: its arguments.

        Returns:
            a list with the result; an empty list if the component refuses.

        Raises:
            AssertionError: the component returned something invalid.
        """
        self._trials += 1
        try:
            return [function(*args)]
        except EasyPrunerError as error:
            if isinstance(error, PluginError) or _comes_from_masks(error):
                raise AssertionError(f'{case}: {error}') from error
            self._messages.append(f'{case}: {error}')
            return []

    def check(self) -> None:
        """Check that the component has accepted at least one trial.

        Raises:
            AssertionError: it has refused all of them.
        """
        messages = self._messages
        assert len(messages) < self._trials, f'the component refuses all networks: {messages}'


def _comes_from_masks(error: EasyPrunerError) -> bool:
    """Return whether the constructor of Masks raised an error."""
    *_, (last, _) = traceback.walk_tb(error.__traceback__)
    return last.f_code is Masks.__init__.__code__


def check_masks(masks: Masks, graph: ChannelGraph, case: str) -> None:
    """Check that masks fit a graph and keep at least one unit of every group.

    Raises:
        AssertionError: they do not.
    """
    got = describe(masks)
    assert isinstance(masks, Masks), f'{case}: got {got}, expected easypruner.Masks'
    try:
        masks.check(graph)
    except MaskError as error:
        raise AssertionError(f'{case}: {error}') from error


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
