"""The callback of the Hugging Face Trainer makes the push of a loop of one's own."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD

import easypruner
from easypruner import PushWarning
from tests.helpers.own_loops import MASKS, Net, batches, make_net

transformers = pytest.importorskip('transformers')
pytest.importorskip('accelerate')
ACCUMULATION, EPOCHS, CLIP = 2, 2, 0.5
DATA = [
    {'pixel_values': image, 'labels': label}
    for images, labels in batches(4)
    for image, label in zip(images, labels, strict=True)
]
BATCH = 2
UPDATES = EPOCHS * len(DATA) // BATCH // ACCUMULATION
OPTIONS: dict[str, Any] = dict(regularizer='MaskSparsity', masks=MASKS, strength=0.1)
pytestmark = pytest.mark.filterwarnings('ignore')


class Model(nn.Module):
    """Returns its loss, as models of transformers do."""

    def __init__(self) -> None:
        super().__init__()
        self.net: Net = make_net()

    def forward(self, pixel_values: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        logits = self.net(pixel_values)
        if labels is None:
            return {'logits': logits}
        return {'loss': nn.functional.cross_entropy(logits, labels), 'logits': logits}


class InOrder(transformers.Trainer):  # type: ignore[misc, name-defined]
    """Does not shuffle."""

    def _get_train_sampler(self, *args: Any) -> Any:
        return torch.utils.data.SequentialSampler(DATA)


def scheduler_of(optimizer: Any) -> Any:
    return torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, total_iters=UPDATES)


def trained(folder: Path, options: dict[str, Any], **resume: Any) -> tuple[nn.Module, Any]:
    from easypruner.integrations.transformers import Regularize

    model = Model()
    graph = easypruner.trace(model.net, torch.rand(1, 3, 8, 8))
    callback = Regularize(graph, **options)
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    arguments = transformers.TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=EPOCHS,
        per_device_train_batch_size=BATCH,
        gradient_accumulation_steps=ACCUMULATION,
        max_grad_norm=CLIP,
        save_strategy='epoch',
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    trainer = InOrder(
        model,
        arguments,
        train_dataset=DATA,
        callbacks=[callback],
        optimizers=(optimizer, scheduler_of(optimizer)),
    )
    trainer.train(**resume)
    return model.net, callback


def by_hand() -> nn.Module:
    net = make_net()
    optimizer = SGD(net.parameters(), lr=0.1, momentum=0.9)
    scheduler = scheduler_of(optimizer)
    graph = easypruner.trace(net, torch.rand(1, 3, 8, 8))
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', PushWarning)
        easypruner.regularize(net, optimizer, graph, updates=UPDATES, **OPTIONS)
        for _ in range(EPOCHS):
            for number, batch in enumerate(torch.utils.data.DataLoader(DATA, BATCH)):
                outputs = net(batch['pixel_values'])
                loss = nn.functional.cross_entropy(outputs, batch['labels'])
                (loss / ACCUMULATION).backward()
                if number % ACCUMULATION:
                    nn.utils.clip_grad_norm_(net.parameters(), CLIP)
                    optimizer.step()
                    scheduler.step()
                    optimizer.zero_grad()
    return net


def test_a_training_makes_the_same_push(tmp_path: Path) -> None:
    net, callback = trained(tmp_path, OPTIONS)
    assert (callback.pusher.done, callback.pusher.updates) == (UPDATES, UPDATES)
    expected = by_hand().state_dict()
    for name, tensor in net.state_dict().items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize(
    'strength', [{'until': 1e-3}, pytest.param({'reach': 0.5}, marks=pytest.mark.slow)]
)
def test_a_training_resumes_from_a_checkpoint(strength: dict[str, float], tmp_path: Path) -> None:
    options = dict(regularizer='MaskSparsity', masks=MASKS, **strength)
    whole, _ = trained(tmp_path, options)
    moved = tmp_path / 'elsewhere'
    (tmp_path / f'checkpoint-{UPDATES // EPOCHS}').rename(moved)
    resumed, callback = trained(tmp_path / 'resumed', options, resume_from_checkpoint=str(moved))
    assert callback.pusher.done == UPDATES
    expected = whole.state_dict()
    for name, tensor in resumed.state_dict().items():
        assert torch.equal(tensor, expected[name]), name
