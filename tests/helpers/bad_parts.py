"""Parts of a config that fail: a hook, metrics, a transform and a regularizer."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, METRICS, TRANSFORMS
from torch import Tensor

from easypruner import Regularizer, hookimpl
from tests.helpers.tiny import tiny_config

BAD_SAMPLE = 17
IMPORTS = dict(custom_imports=dict(imports=['tests.helpers.bad_parts']))


@HOOKS.register_module(force=True)
class FailingHook(Hook):
    """Raises an exception when one of its methods is called for the n-th time."""

    def __init__(self, method: str, calls: int = 1) -> None:
        setattr(self, method, self._fail)
        self.calls = calls

    def _fail(self, *_: Any, **__: Any) -> None:
        self.calls -= 1
        if not self.calls:
            raise KeyError('no such entry')


@METRICS.register_module(force=True)
class FailingMetric(BaseMetric):
    """Raises an exception when it computes its results."""

    def process(self, data_batch: Any, data_samples: Any) -> None:
        self.results.append(1)

    def compute_metrics(self, results: Any) -> dict[str, float]:
        raise AttributeError('no results')


@METRICS.register_module(force=True)
class OneNumber(FailingMetric):
    """Returns a number under a name."""

    def __init__(self, name: str, value: float = 0.5) -> None:
        super().__init__()
        self.number = {name: value}

    def compute_metrics(self, results: Any) -> dict[str, float]:
        return self.number


@TRANSFORMS.register_module(force=True)
class Damaged(BaseTransform):
    """Fails at one sample, ends its process, or makes it NaN."""

    def __init__(self, how: str, sample: int = BAD_SAMPLE) -> None:
        self.how, self.sample = how, sample

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        results['img'] = results['img'].astype('float32')
        if results['sample_idx'] != self.sample:
            return results
        if self.how == 'raise':
            raise ValueError('a damaged image')
        if self.how == 'exit':
            os._exit(3)
        results['img'][0, 0] = np.nan
        return results


class Failing(Regularizer):
    """Its penalty is fine for some updates, then it fails."""

    def __init__(self, how: str, after: int = 4, **options: Any) -> None:
        super().__init__(strength=1e-3, **options)
        self.how, self.after = how, after

    def penalty(self, graph: Any, masks: Any) -> Tensor:
        self.after -= 1
        scale = next(p for p in graph.model.parameters() if p.dim() == 1)
        if self.after >= 0:
            return scale.abs().sum()
        penalties: dict[str, Any] = {
            'nan gradient': (scale - scale).sum().sqrt(),
            'float': 0.5,
            'no gradient': scale.detach().sum(),
            'vector': scale,
        }
        return torch.zeros(1)[5] if self.how == 'raise' else penalties[self.how]


def damaged_loader(
    split: str, how: str, sample: int = BAD_SAMPLE, **changes: Any
) -> dict[str, Any]:
    """Return the data loader of the tiny config with the transform Damaged."""
    loader: dict[str, Any] = tiny_config()[f'{split}_dataloader'] | changes
    loader['dataset']['pipeline'].insert(0, dict(type='Damaged', how=how, sample=sample))
    return loader


easypruner_components = hookimpl(lambda: [Failing])
