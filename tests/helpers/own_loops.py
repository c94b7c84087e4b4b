"""Training loops of one's own: a small network, its masks and batches, and ways of training."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

import easypruner
from easypruner import Masks, Pusher, PushWarning
from easypruner.graph import ChannelGraph

STRENGTH = 0.125
UPDATES = 4


class Net(nn.Module):
    """Two convolutions with batch norms, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6)
        self.conv2, self.norm2 = nn.Conv2d(6, 5, 3), nn.BatchNorm2d(5)
        self.head = nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm1(self.conv1(x)).relu()
        return self.head(self.norm2(self.conv2(x)).relu().mean((2, 3)))


GOES = {'norm1': torch.arange(6) % 2 == 1, 'norm2': torch.arange(5) % 2 == 1}
MASKS = Masks({'conv1': ~GOES['norm1'], 'conv2': ~GOES['norm2']})


def make_net() -> Net:
    torch.manual_seed(0)
    net = Net()
    with torch.no_grad():
        for norm in (net.norm1, net.norm2):
            norm.weight.uniform_(-1, 1)
            norm.bias.uniform_(-1, 1)
    return net


def graph_of(net: nn.Module) -> ChannelGraph:
    return easypruner.trace(net, torch.rand(1, 3, 8, 8).to(next(net.parameters())))


def batches(number: int = UPDATES) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [
        (
            torch.randn(4, 3, 8, 8, generator=generator),
            torch.randint(4, (4,), generator=generator),
        )
        for _ in range(number)
    ]


def loss_of(net: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return nn.functional.cross_entropy(net(batch[0]), batch[1])


def start(
    net: nn.Module, optimizer: Any, regularizer: Any = 'MaskSparsity', **given: Any
) -> Pusher:
    """Start to push, with masks and a strength unless others are given."""
    inner = getattr(net, 'module', getattr(net, '_orig_mod', net))
    if isinstance(regularizer, str) and not {'strength', 'reach', 'until'} & given.keys():
        given['strength'] = STRENGTH
    options = {'updates': UPDATES, 'masks': MASKS, **given}
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', PushWarning)
        return easypruner.regularize(net, optimizer, graph_of(inner), regularizer, **options)


# Each way of training is a function that trains with an optimizer.


def plain(net: nn.Module, optimizer: Optimizer) -> None:
    for batch in batches():
        optimizer.zero_grad()
        loss_of(net, batch).backward()
        optimizer.step()


def accumulation(net: nn.Module, optimizer: Optimizer) -> None:
    for number, batch in enumerate(batches(3 * UPDATES)):
        (loss_of(net, batch) / 3).backward()
        if number % 3 == 2:
            optimizer.step()
            optimizer.zero_grad()


def clipping(net: nn.Module, optimizer: Optimizer) -> None:
    for batch in batches():
        optimizer.zero_grad()
        loss_of(net, batch).backward()
        nn.utils.clip_grad_norm_(net.parameters(), 0.1)
        optimizer.step()


def scaler(net: nn.Module, optimizer: Optimizer, clip: bool = False, huge: bool = False) -> None:
    scaler = torch.amp.GradScaler('cpu', init_scale=1024.0)
    # The update of an infinite loss is skipped, and repeated with the next batch.
    for number, batch in enumerate(batches(UPDATES + huge)):
        optimizer.zero_grad()
        with torch.autocast('cpu', torch.bfloat16):
            loss = loss_of(net, batch)
        if huge and number == 1:
            loss = loss * float('inf')
        scaler.scale(loss).backward()
        if clip:
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(net.parameters(), 0.1)
        scaler.step(optimizer)
        scaler.update()


def closure(net: nn.Module, optimizer: Optimizer) -> None:
    for batch in batches():

        def compute(batch: Any = batch) -> Tensor:
            optimizer.zero_grad()
            loss = loss_of(net, batch)
            loss.backward()
            return loss

        optimizer.step(compute)


def compiled(net: nn.Module, optimizer: Optimizer) -> None:
    plain(torch.compile(net, backend='aot_eager'), optimizer)  # type: ignore[arg-type]


WAYS = {
    'plain': plain,
    'accumulation': accumulation,
    'clipping': clipping,
    'scaler': scaler,
    'scaler and clipping': lambda *given: scaler(*given, clip=True),
    'a skipped update': lambda *given: scaler(*given, huge=True),
    'closure': closure,
    'compiled': compiled,
}
