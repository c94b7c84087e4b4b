"""Data loaders, evaluators, optimizers and models in the forms that MMEngine takes, or refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.registry import DATASETS, OPTIM_WRAPPER_CONSTRUCTORS
from torch import nn
from torch.utils.data import IterableDataset

from easypruner.engine.runner import example_input
from easypruner.engine.schedule import measure_schedule
from easypruner.errors import ConfigError, Mistakes
from easypruner.pipeline.data_check import build_loader, check_evaluator
from tests.helpers.tiny import tiny_config


@DATASETS.register_module()
class EndlessStream(IterableDataset[Any]):
    """Samples without a number."""

    def __iter__(self) -> Iterator[Any]:
        yield 0


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class TwoOptimizers:
    """Makes an optimizer for the weights and one for the biases, as for adversarial training."""

    def __init__(self, optim_wrapper_cfg: Any, paramwise_cfg: Any = None) -> None:
        pass

    def __call__(self, model: nn.Linear) -> OptimWrapperDict:
        made = (OptimWrapper(torch.optim.SGD([p], lr=0.1)) for p in (model.weight, model.bias))
        return OptimWrapperDict(**dict(zip(('weights', 'biases'), made, strict=True)))


@pytest.mark.parametrize(
    ('loader', 'part'),
    [
        (dict(dataset=dict(type='EndlessStream'), shuffle=True), 'there is no sampler'),
        (dict(dataset=dict(type='EndlessStream'), sampler=None), 'EndlessStream has no length'),
    ],
)
def test_a_loader_that_cannot_count_epochs(loader: Any, part: str) -> None:
    mistakes = Mistakes()
    config = Config(tiny_config(val_dataloader=dict(batch_size=2, **loader)))
    assert build_loader(config, 'val_dataloader', mistakes) is None
    (message,) = map(str, mistakes.found)
    assert message.startswith('val_dataloader: ') and part in message


def test_a_data_set_that_is_smaller_than_a_batch() -> None:
    mistakes = Mistakes()
    content = tiny_config()
    content['train_dataloader'] |= dict(batch_size=9999, drop_last=True)
    assert build_loader(Config(content), 'train_dataloader', mistakes) is None
    (message,) = map(str, mistakes.found)
    assert 'no whole batch' in message and 'batch_size=9999' in message


@pytest.mark.parametrize(
    'evaluator',
    [
        dict(type='DumpResults', out_file_path='x.pkl'),
        [dict(type='DumpResults', out_file_path='x.pkl')],
        dict(metrics=[dict(type='DumpResults', out_file_path='x.pkl')]),
        dict(type='Evaluator', metrics=dict(type='DumpResults', out_file_path='x.pkl')),
    ],
)
def test_all_forms_of_an_evaluator_are_taken(evaluator: Any) -> None:
    mistakes = Mistakes()
    assert check_evaluator(Config(tiny_config(val_evaluator=evaluator)), mistakes)
    assert not mistakes.found


def test_several_optimizers_are_refused() -> None:
    config = dict(optim_wrapper=dict(constructor='TwoOptimizers'))
    with pytest.raises(ConfigError, match='makes 2 optimizers, but a stage trains with one'):
        measure_schedule(config, 2, 1, nn.Linear(2, 2))


def test_a_model_that_is_not_of_mmengine_is_refused() -> None:
    with pytest.raises(ConfigError, match='Linear is not a BaseModel of MMEngine'):
        example_input(Config(tiny_config()), nn.Linear(2, 2))  # type: ignore[arg-type]
