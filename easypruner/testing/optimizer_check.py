"""The check of optimizer handlers: training goes on like that of a network made by hand.

The channels that are cut are the only dimension of size 7 in the network. So a state tells by its
shape alone, without the name of an entry, which of its numbers belong to them.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from easypruner.slimming import prune
from easypruner.strategies import OptimizerHandler

CHANNELS = 7
KEPT = torch.tensor([0, 2, 3, 6])
MASKS = {'first': torch.isin(torch.arange(CHANNELS), KEPT)}

_CHANNEL_OF: dict[str, dict[int, Callable[[int], int]]] = {
    'first.weight': {126: lambda i: i // 18},
    'last.weight': {42: lambda i: i // 6, 210: lambda i: i // 6 % CHANNELS},
}
"""Parameter -> size of flattened dimensions -> the channel of a number at an index."""

Make = Callable[[nn.Module], Any]
Update = Callable[[nn.Module, Any], None]


class SevenChannels(nn.Module):
    """A network that takes 3 x 9 x 9 images, of which ``first`` has the channels to be cut."""

    def __init__(self, channels: int = CHANNELS) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, channels, (3, 2), bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.last = nn.Conv2d(channels, 5, (3, 2))
        self.head = nn.Linear(5, 11)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.head(self.last(self.norm(self.first(x)).relu()).mean((2, 3)))
        return scores


def make_update(model: nn.Module, optimizer: Any) -> None:
    """Make an update on random images."""
    optimizer.zero_grad()
    model(torch.rand(4, 3, 9, 9)).square().mean().backward()
    optimizer.step()


def check_optimizer_handler(
    handler: OptimizerHandler | Sequence[OptimizerHandler],
    make: Make,
    update: Update = make_update,
    updates: int = 3,
) -> None:
    """Train a network, cut it with its optimizer, and train it on.

    Its twin has the size after the cut. Its weights and the states of its optimizer are slices by
    shape, which know no layout. Both have to make the same updates.

    Args:
        handler: one or several handlers of optimizers.
        make: makes the optimizer of a network.
        update: makes an update of a network with its optimizer.
        updates: how many updates to make before the cut.

    Raises:
        AssertionError: a state or a weight differs, or the optimizer changes no weight.
        CutError: the state of the optimizer cannot be cut.
    """
    handlers = [handler] if isinstance(handler, OptimizerHandler) else list(handler)
    model, optimizer = trained(make, update, updates)
    twin, other = _twin_of(model, optimizer, make)
    prune(
        model,
        MASKS,
        example_inputs=torch.zeros(1, 3, 9, 9),
        optimizer=optimizer,
        optimizer_handlers=handlers,
    )
    before = {name: parameter.detach().clone() for name, parameter in twin.named_parameters()}
    for seed in (7, 8):
        for network, its in ((model, optimizer), (twin, other)):
            torch.manual_seed(seed)
            update(network, its)
        for name, parameter in twin.named_parameters():
            assert parameter.isfinite().all(), f'{name} is not finite; use a lower learning rate'
            same = torch.allclose(model.get_parameter(name), parameter, rtol=1e-5, atol=1e-7)
            assert same, f'after the cut, {name} is not updated as in a network made by hand'
    changed = any(not torch.equal(before[n], p) for n, p in twin.named_parameters())
    assert changed, f'no weight changes after {updates} updates; use more updates'


def trained(make: Make, update: Update = make_update, updates: int = 3) -> tuple[nn.Module, Any]:
    """Return a network and its optimizer after some updates."""
    torch.manual_seed(0)
    model = SevenChannels()
    optimizer = make(model)
    for seed in range(updates):
        torch.manual_seed(seed)
        update(model, optimizer)
    return model, optimizer


def slice_by_shape(name: str, value: Any) -> Any:
    """Return what belongs to the kept channels, of a parameter or of a state of it."""
    if isinstance(value, Mapping):
        return {key: slice_by_shape(name, entry) for key, entry in value.items()}
    if isinstance(value, deque):
        return deque([slice_by_shape(name, entry) for entry in value], value.maxlen)
    if isinstance(value, list | tuple):
        return type(value)(slice_by_shape(name, entry) for entry in value)
    if not isinstance(value, Tensor):
        return copy.deepcopy(value)
    result, channel_of = value.detach().clone(), _CHANNEL_OF.get(name, {})
    for dim, size in enumerate(value.shape):
        if size == CHANNELS:
            result = result.index_select(dim, KEPT)
        elif size in channel_of:
            inside = [i for i in range(size) if channel_of[size](i) in KEPT.tolist()]
            result = result.index_select(dim, torch.tensor(inside))
    return result


def _twin_of(model: nn.Module, optimizer: Any, make: Make) -> tuple[nn.Module, Any]:
    twin = SevenChannels(len(KEPT))
    twin.load_state_dict({n: slice_by_shape(n, t) for n, t in model.state_dict().items()})
    names = {id(p): name for name, p in model.named_parameters()}
    other = make(twin)
    for one, its in zip(_optimizers_in(optimizer), _optimizers_in(other), strict=True):
        for group, new in zip(one.param_groups, its.param_groups, strict=True):
            new.update({k: copy.deepcopy(v) for k, v in group.items() if k != 'params'})
        for key, state in one.state.items():
            if isinstance(key, Tensor):
                name = names[id(key)]
                its.state[twin.get_parameter(name)] = slice_by_shape(name, state)
            else:
                its.state[key] = copy.deepcopy(state)
        for key, value in vars(one).items():
            if isinstance(value, int | float | list) and key != 'param_groups':
                setattr(its, key, copy.deepcopy(value))
    return twin, other


def _optimizers_in(optimizer: Any) -> Iterator[Any]:
    """Yield an optimizer and those that it wraps."""
    yield optimizer
    for value in vars(optimizer).values():
        if hasattr(value, 'param_groups') and hasattr(value, 'state'):
            yield from _optimizers_in(value)
