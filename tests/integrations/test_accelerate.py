"""regularize() of Accelerate makes the push of a loop of one's own."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD

import easypruner
from easypruner import PushWarning
from tests.helpers.own_loops import MASKS, batches, graph_of, loss_of, make_net

accelerate = pytest.importorskip('accelerate')
ACCUMULATION = 2
DATA = batches(12)
UPDATES = len(DATA) // ACCUMULATION
OPTIONS: dict[str, Any] = dict(regularizer='MaskSparsity', masks=MASKS, reach=0.5, updates=UPDATES)
pytestmark = pytest.mark.filterwarnings('ignore')


def scheduler_of(optimizer: Any) -> Any:
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.2, total_steps=UPDATES)


class Loop:
    """A loop of Accelerate."""

    def __init__(self) -> None:
        from easypruner.integrations.accelerate import regularize

        self.accelerator = accelerate.Accelerator(
            cpu=True, gradient_accumulation_steps=ACCUMULATION
        )
        self.net = make_net()
        graph = graph_of(self.net)
        optimizer = SGD(self.net.parameters(), lr=0.1, momentum=0.9)
        loader = torch.utils.data.DataLoader(DATA, None)
        self.model, self.optimizer, self.scheduler, self.loader = self.accelerator.prepare(
            self.net, optimizer, scheduler_of(optimizer), loader
        )
        self.pusher = regularize(
            self.accelerator, self.model, self.optimizer, graph, scheduler=self.scheduler, **OPTIONS
        )

    def train(self, first: int = 0, last: int = len(DATA)) -> nn.Module:
        for batch in DATA[first:last]:
            with self.accelerator.accumulate(self.model):
                loss = loss_of(self.model, batch)
                self.accelerator.backward(loss)
                if self.accelerator.sync_gradients:
                    self.accelerator.clip_grad_norm_(self.model.parameters(), 0.5)
                self.optimizer.step()
                self.scheduler.step()
                self.optimizer.zero_grad()
        return self.net


def by_hand() -> nn.Module:
    net = make_net()
    optimizer = SGD(net.parameters(), lr=0.1, momentum=0.9)
    scheduler = scheduler_of(optimizer)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', PushWarning)
        easypruner.regularize(net, optimizer, graph_of(net), scheduler=scheduler, **OPTIONS)
        for number, batch in enumerate(DATA):
            (loss_of(net, batch) / ACCUMULATION).backward()
            if number % ACCUMULATION:
                nn.utils.clip_grad_norm_(net.parameters(), 0.5)
                optimizer.step()
                scheduler.step()
                optimizer.zero_grad()
    return net


def test_a_loop_makes_the_same_push() -> None:
    loop = Loop()
    expected = by_hand().state_dict()
    for name, tensor in loop.train().state_dict().items():
        torch.testing.assert_close(tensor, expected[name], msg=name)
    assert loop.pusher.done == UPDATES


def test_a_loop_resumes_from_a_checkpoint(tmp_path: Path) -> None:
    half = len(DATA) // 2
    whole = Loop().train().state_dict()
    loop = Loop()
    loop.train(0, half)
    loop.accelerator.save_state(tmp_path)
    resumed = Loop()
    resumed.accelerator.load_state(tmp_path)
    assert resumed.pusher.done == half // ACCUMULATION
    for name, tensor in resumed.train(half).state_dict().items():
        assert torch.equal(tensor, whole[name]), name


def test_a_prepared_scheduler_makes_a_step_for_each_process() -> None:
    from easypruner.integrations.accelerate import _Steps
    from easypruner.strategies.regularizers.rates import predicted_rates

    optimizer = SGD(make_net().parameters(), lr=0.1)
    scheduler = scheduler_of(optimizer)
    (alone,) = predicted_rates(optimizer, UPDATES, scheduler)
    (pairs,) = predicted_rates(optimizer, UPDATES // 2, _Steps(scheduler, 2))
    assert pairs.tolist() == alone[::2].tolist()
    # Later updates make no steps any more.
    (longer,) = predicted_rates(optimizer, UPDATES, _Steps(scheduler, 2))
    assert len(longer) == UPDATES
