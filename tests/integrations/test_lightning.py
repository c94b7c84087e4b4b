"""The callback of Lightning makes the push of a loop of one's own."""

from __future__ import annotations

import copy
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

lightning = pytest.importorskip('lightning.pytorch')
ACCUMULATION, EPOCHS, CLIP = 2, 2, 0.5
DATA = batches(6)
UPDATES = EPOCHS * len(DATA) // ACCUMULATION
ACTIVATIONS = 'ActivationSparsity'
CASES: dict[str, dict[str, Any]] = {
    'a gradient': dict(regularizer='MaskSparsity', masks=MASKS, reach=0.5),
    'a closed loop': dict(regularizer='MaskSparsity', masks=MASKS, until=1e-3),
    'activations': dict(regularizer=ACTIVATIONS, strength=0.5),
}
pytestmark = pytest.mark.filterwarnings('ignore')


def scheduler_of(optimizer: Any) -> Any:
    return torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)


class Module(lightning.LightningModule):  # type: ignore[misc, name-defined]
    """Trains the network with accumulation and a scheduler that is stepped once an epoch."""

    def __init__(self, net: nn.Module, callback: Any) -> None:
        super().__init__()
        self.net = net
        self.callback = [callback]

    def training_step(self, batch: Any, number: int) -> Any:
        return self.callback[0].loss(loss_of(self.net, batch))

    def configure_optimizers(self) -> Any:
        optimizer = SGD(self.parameters(), lr=0.1, momentum=0.9)
        return {'optimizer': optimizer, 'lr_scheduler': scheduler_of(optimizer)}


def fit(
    folder: Path, options: dict[str, Any], epochs: int = EPOCHS, **resume: Any
) -> tuple[nn.Module, Any, Any]:
    from easypruner.integrations.lightning import Regularize

    net = make_net()
    # The second training must know how long the whole one is.
    callback = Regularize(graph_of(net), updates=UPDATES, **options)
    trainer = lightning.Trainer(
        max_epochs=epochs,
        accumulate_grad_batches=ACCUMULATION,
        gradient_clip_val=CLIP,
        accelerator='cpu',
        default_root_dir=folder,
        callbacks=[callback],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    trainer.fit(Module(net, callback), torch.utils.data.DataLoader(DATA, None), **resume)
    return net, callback, trainer


def by_hand(options: dict[str, Any]) -> nn.Module:
    net = make_net()
    optimizer = SGD(net.parameters(), lr=0.1, momentum=0.9)
    scheduler = scheduler_of(optimizer)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', PushWarning)
        pusher = easypruner.regularize(
            net,
            optimizer,
            graph_of(net),
            updates=UPDATES,
            scheduler=scheduler,
            scheduler_every=UPDATES // EPOCHS,
            **options,
        )
        for _ in range(EPOCHS):
            for number, batch in enumerate(DATA):
                (pusher.loss(loss_of(net, batch)) / ACCUMULATION).backward()
                if number % ACCUMULATION:
                    nn.utils.clip_grad_norm_(net.parameters(), CLIP)
                    optimizer.step()
                    optimizer.zero_grad()
            scheduler.step()
    return net


@pytest.mark.parametrize('case', CASES)
def test_a_fit_makes_the_same_push(case: str, tmp_path: Path) -> None:
    options = CASES[case]
    net, callback, trainer = fit(tmp_path, options)
    expected = by_hand(options).state_dict()
    for name, tensor in net.state_dict().items():
        torch.testing.assert_close(tensor, expected[name], msg=name)
    assert (callback.pusher.done, callback.pusher.updates) == (UPDATES, UPDATES)
    assert trainer.estimated_stepping_batches == UPDATES
    assert not trainer.optimizers[0]._optimizer_step_pre_hooks


def test_a_fit_resumes_from_a_checkpoint(tmp_path: Path) -> None:
    options = CASES['a closed loop']
    whole, _, _ = fit(tmp_path, options)
    _, _, trainer = fit(tmp_path, options, epochs=1)
    trainer.save_checkpoint(tmp_path / 'half.ckpt')
    resumed, callback, _ = fit(tmp_path, options, ckpt_path=tmp_path / 'half.ckpt')
    assert callback.pusher.done == UPDATES
    expected = copy.deepcopy(whole.state_dict())
    for name, tensor in resumed.state_dict().items():
        assert torch.equal(tensor, expected[name]), name
