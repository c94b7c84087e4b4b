"""A network and its twin of the size after the cut, made by hand, to compare their next updates.

The channels that are cut are the only dimension of size 7 in the network, so that a state tells by
its shape alone, without its name, which of its numbers belong to them.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

import easypruner
from easypruner.graph import ChannelGraph

CHANNELS = 7
KEPT = torch.tensor([0, 2, 3, 6])
MASKS = {'first': torch.isin(torch.arange(CHANNELS), KEPT)}
INNER = ('_base_optimizer', 'base', 'optimizer')

_CHANNEL_OF: dict[str, dict[int, Callable[[int], int]]] = {
    'first.weight': {126: lambda i: i // 18},
    'last.weight': {42: lambda i: i // 6, 210: lambda i: i // 6 % CHANNELS},
}
"""Parameter -> size of flattened dimensions -> the channel of a number at an index."""

Make = Callable[[Any], Any]
"""Makes an optimizer of a network."""


class Net(nn.Module):
    def __init__(self, channels: int = CHANNELS) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, channels, (3, 2), bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.last = nn.Conv2d(channels, 5, (3, 2))
        self.head = nn.Linear(5, 11)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.last(self.norm(self.first(x)).relu()).mean((2, 3)))


@cache
def _graph() -> ChannelGraph:
    torch.manual_seed(0)
    return easypruner.trace(Net(), torch.zeros(1, 3, 9, 9))


def optimizers_in(optimizer: Any) -> Iterator[Any]:
    """Yield an optimizer and those that it wraps."""
    yield optimizer
    for name in INNER:
        if hasattr(optimizer, name):
            yield from optimizers_in(getattr(optimizer, name))


def update(model: nn.Module, optimizer: Any, seed: int) -> None:
    """Make an update on data that depend on the seed alone."""
    torch.manual_seed(seed)
    if callable(getattr(optimizer, 'train', None)):
        optimizer.train()
    x, second = torch.rand(4, 3, 9, 9), needs_second_order(optimizer)

    def closure() -> Tensor:
        optimizer.zero_grad()
        with torch.enable_grad():
            loss = model(x).square().mean()
            loss.backward(create_graph=second)
        return loss

    if takes_closure(optimizer):
        optimizer.step(closure)
    else:
        closure()
        optimizer.step()


def needs_second_order(optimizer: Any) -> bool:
    return any('hess' in type(o).__name__.lower() or 'Sophia' in type(o).__name__
               for o in optimizers_in(optimizer))  # fmt: skip


def takes_closure(optimizer: Any) -> bool:
    return type(optimizer).__name__.endswith(('Closure', 'LBFGS', 'AliG'))


def slice_by_hand(name: str, value: Any) -> Any:
    """Return what belongs to the kept channels, of a parameter or of a state of it."""
    if isinstance(value, dict):
        return {key: slice_by_hand(name, entry) for key, entry in value.items()}
    if isinstance(value, deque):
        return deque([slice_by_hand(name, entry) for entry in value], value.maxlen)
    if isinstance(value, list | tuple):
        return type(value)(slice_by_hand(name, entry) for entry in value)
    if not isinstance(value, Tensor):
        return copy.deepcopy(value)
    result, channel_of = value.detach().clone(), _CHANNEL_OF.get(name, {})
    for dim, size in enumerate(value.shape):
        if size == CHANNELS:
            result = result.index_select(dim, KEPT)
        elif size in channel_of:
            inside = [i for i in range(size) if channel_of[size](i) in KEPT]
            result = result.index_select(dim, torch.tensor(inside))
    return result


def twin_of(model: nn.Module, optimizer: Any, make: Make) -> tuple[nn.Module, Any]:
    """Return a network of the size after the cut, with weights and states that are sliced."""
    twin = Net(len(KEPT))
    twin.load_state_dict({n: slice_by_hand(n, t) for n, t in model.state_dict().items()})
    names = {id(p): name for name, p in model.named_parameters()}
    theirs = make(twin)
    for one, other in zip(optimizers_in(optimizer), optimizers_in(theirs), strict=True):
        for group, copied in zip(one.param_groups, other.param_groups, strict=True):
            copied.update({k: copy.deepcopy(v) for k, v in group.items() if k != 'params'})
        for key, state in one.state.items():
            if isinstance(key, Tensor):
                name = names[id(key)]
                other.state[twin.get_parameter(name)] = slice_by_hand(name, dict(state))
            else:
                other.state[key] = copy.deepcopy(state)
        for key, value in vars(one).items():
            if isinstance(value, int | float | list) and key != 'param_groups':
                setattr(other, key, copy.deepcopy(value))
    return twin, theirs


def trained(make: Make, updates: int = 3) -> tuple[nn.Module, Any]:
    """Return a network and its optimizer after some updates."""
    torch.manual_seed(0)
    model = Net()
    optimizer = make(model)
    for seed in range(updates):
        update(model, optimizer, seed)
    return model, optimizer


def prune(model: nn.Module, optimizer: Any, **options: Any) -> None:
    easypruner.prune(model, MASKS, graph=_graph().on(model), optimizer=optimizer, **options)


def check_twin(make: Make, updates: int = 3, **options: Any) -> None:
    """Train, cut, and update twice; the twin has to make the same updates.

    Raises:
        AssertionError: a weight differs.
    """
    model, optimizer = trained(make, updates)
    twin, theirs = twin_of(model, optimizer, make)
    prune(model, optimizer, **options)
    for seed in (7, 8):
        before = copy.deepcopy(twin.state_dict())
        update(model, optimizer, seed)
        update(twin, theirs, seed)
        for name, parameter in twin.named_parameters():
            assert torch.isfinite(parameter).all(), name
            torch.testing.assert_close(
                model.get_parameter(name), parameter, rtol=1e-5, atol=1e-7, msg=name
            )
    assert any(not torch.equal(before[n], p) for n, p in twin.named_parameters())
