"""Models of plain MMEngine: other arguments than inputs, batches as tuples, no mode 'tensor'."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, METRICS, MODELS
from torch import Tensor, nn
from torch.utils.data import Dataset

import easypruner
from easypruner.engine.model_calls import images_call, loss_call, outputs_call
from easypruner.engine.runner import Tracer
from easypruner.errors import ConfigError
from easypruner.pipeline.stages.common import forward_pass, training_loss
from tests.helpers.tiny import prune, summary, tiny_stages, write_config

SAMPLES = 24


def make_body() -> nn.Sequential:
    """Return a classifier of images with one channel."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 12, 3),
        nn.BatchNorm2d(12), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 4),
    )  # fmt: skip


@MODELS.register_module()
class TutorialModel(BaseModel):
    """A model as those of MMEngine's tutorials: it returns nothing in the mode 'tensor'."""

    def __init__(self, data_preprocessor: Any = None) -> None:
        super().__init__(data_preprocessor)
        self.body = make_body()

    def forward(self, imgs: Tensor, labels: Tensor, mode: str) -> Any:
        logits = self.body(imgs)
        if mode == 'loss':
            return {'loss': nn.functional.cross_entropy(logits, labels)}
        return (logits, labels) if mode == 'predict' else None


class TensorModel(TutorialModel):
    """A model with the mode 'tensor' that needs the images alone."""

    def forward(
        self, imgs: Tensor, labels: Tensor | None = None, notes: Any = None, mode: str = 'tensor'
    ) -> Any:
        if mode == 'tensor':
            assert notes is None
            return self.body(imgs)
        assert labels is not None
        return super().forward(imgs, labels, mode)


class DemandingModel(TutorialModel):
    """A model that raises an error in any mode that it does not know."""

    def forward(self, imgs: Tensor, labels: Tensor, mode: str) -> Any:
        if mode not in ('loss', 'predict'):
            raise RuntimeError(f'invalid mode {mode}')
        return super().forward(imgs, labels, mode)


@DATASETS.register_module()
class TutorialData(Dataset[Any]):
    """Images whose class is that of their brightest quarter, as pairs of image and label."""

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, number: int) -> tuple[Tensor, int]:
        image = torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(number))
        label = number % 4
        image[0, 4 * (label // 2) :][:4, 4 * (label % 2) :][:, :4] += 1
        return image, label


@METRICS.register_module()
class TutorialAccuracy(BaseMetric):
    """The accuracy of logits and labels."""

    def process(self, data_batch: Any, data_samples: Any) -> None:
        """Count the right answers."""
        logits, labels = data_samples
        self.results += (logits.argmax(1) == labels).tolist()

    def compute_metrics(self, results: list[Any]) -> dict[str, float]:
        """Return the share of right answers in percent."""
        return {'accuracy': 100 * sum(results) / len(results)}


def make_config(stages: Any = ()) -> Config:
    """Return a config of plain MMEngine, without anything of mmpretrain."""
    loader = dict(
        batch_size=8,
        num_workers=0,
        dataset=dict(type='TutorialData'),
        collate_fn=dict(type='default_collate'),
    )
    return Config(
        dict(
            default_scope='mmengine',
            model=dict(type='TutorialModel'),
            train_dataloader={**loader, 'sampler': dict(type='DefaultSampler', shuffle=True)},
            val_dataloader={**loader, 'sampler': dict(type='DefaultSampler', shuffle=False)},
            val_cfg=dict(),
            val_evaluator=dict(type='TutorialAccuracy'),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.05, momentum=0.9)),
            stages=list(stages),
        )
    )


@pytest.mark.parametrize('kind', [TutorialModel, TensorModel, DemandingModel])
@pytest.mark.parametrize('form', [tuple, list, dict])
def test_a_batch_becomes_the_call_that_mmengine_makes(kind: Any, form: Any) -> None:
    model = kind().eval()
    images, labels = torch.rand(3, 1, 8, 8), torch.tensor([0, 1, 2])
    data = dict(imgs=images, labels=labels) if form is dict else form([images, labels])
    outputs = forward_pass(model, data)
    logits = outputs[0] if isinstance(outputs, tuple) else outputs
    torch.testing.assert_close(logits, model.body(images))
    assert isinstance(outputs, tuple) == (kind is not TensorModel)
    expected = model._run_forward(data, mode='loss')['loss']
    torch.testing.assert_close(training_loss(model, data), expected)


def test_what_is_not_a_tensor_is_left_out_where_it_can_be() -> None:
    images = torch.rand(1, 1, 8, 8)
    assert list(outputs_call(TensorModel(), dict(imgs=images, notes=['a note']))) == [
        'imgs',
        'mode',
    ]
    assert list(images_call(TensorModel(), images)) == ['imgs', 'mode']
    assert loss_call(TensorModel(), (images, None, ['a note']))['notes'] == ['a note']


@pytest.mark.parametrize(
    ('data', 'message'),
    [
        (dict(image=torch.rand(1)), r"TutorialModel.forward\(imgs.*'image'"),
        ((torch.rand(1),) * 3, 'does not fit'),
        (torch.rand(1), r'returns a float32 tensor.*expected a dict'),
    ],
)
def test_a_batch_that_does_not_fit_is_explained(data: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        loss_call(TutorialModel(), data)


def test_the_graph_is_that_of_the_network_inside() -> None:
    model = TutorialModel()
    found = Tracer(make_config(), ())(model)
    alone = easypruner.trace(model.body, torch.rand(1, 1, 8, 8))
    assert {f'body.{name}': group.size for name, group in alone.groups.items()} == {
        name: group.size for name, group in found.groups.items()
    }
    assert found.cost() == alone.cost()


@pytest.mark.slow
def test_a_run_of_plain_mmengine(tmp_path: Path) -> None:
    stages = tiny_stages()
    stages[-1:-1] = [dict(type='Distill', epochs=1, row='distilled', hints=dict(layers=['body.2']))]
    assert prune(write_config(tmp_path, make_config(stages).to_dict()), tmp_path / 'run') == 0
    rows = {row['name']: row for row in summary(tmp_path / 'run')['rows']}
    assert rows['distilled']['macs'] <= rows['baseline']['macs'] / 2
