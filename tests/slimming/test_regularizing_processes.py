"""regularize() in two processes: each one makes the push by hand on the averaged gradients."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD

from tests.helpers.own_loops import GOES, STRENGTH, UPDATES, batches, loss_of, make_net, start


def train(rank: int, folder: str) -> None:
    """Train in one of two processes, on every second batch."""
    torch.set_num_threads(1)
    dist.init_process_group('gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2)
    net = make_net()
    model = DistributedDataParallel(net, broadcast_buffers=False, gradient_as_bucket_view=True)
    optimizer = SGD(net.parameters(), lr=0.1, momentum=0.9)
    pusher = start(model, optimizer)
    for batch in batches(2 * UPDATES)[rank::2]:
        optimizer.zero_grad(set_to_none=False)
        loss_of(model, batch).backward()
        optimizer.step()
    weights = {name: p.detach() for name, p in net.named_parameters()}
    torch.save([weights, str(pusher.summary())], f'{folder}/{rank}.pt')
    dist.barrier()
    dist.destroy_process_group()


def by_hand() -> nn.Module:
    """Train on the mean of both losses, with strength * sign(gamma) in the gradient."""
    # Each process has its own running statistics, which training does not use.
    net, other = make_net(), make_net()
    optimizer = SGD(net.parameters(), lr=0.1, momentum=0.9)
    pairs = iter(batches(2 * UPDATES))
    for first, second in zip(pairs, pairs, strict=True):
        gradients = []
        other.load_state_dict(net.state_dict())
        for batch in (first, second):
            other.zero_grad()
            loss_of(other, batch).backward()
            gradients.append([p.grad.clone() for p in other.parameters()])
        for parameter, one, two in zip(net.parameters(), *gradients, strict=True):
            parameter.grad = (one + two) / 2
        for norm, goes in GOES.items():
            scale = getattr(net, norm).weight
            scale.grad += STRENGTH * torch.sign(scale.detach()) * goes
        optimizer.step()
    return net


@pytest.mark.slow
def test_both_processes_make_the_same_push(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(train, (str(tmp_path),), nprocs=2)
    (first, text), (second, other) = (
        torch.load(tmp_path / f'{rank}.pt', weights_only=True) for rank in (0, 1)
    )
    expected = dict(by_hand().named_parameters())
    for name, parameter in first.items():
        assert torch.equal(parameter, second[name]), name
        torch.testing.assert_close(parameter, expected[name].detach(), rtol=1e-4, atol=1e-6)
    assert text == other
