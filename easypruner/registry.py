"""The registries of models and data sets, where MMEngine looks for the scope ``easypruner``."""

from __future__ import annotations

from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import Registry

MODELS = Registry(
    'model',
    parent=MMENGINE_MODELS,
    scope='easypruner',
    locations=['easypruner.models', 'easypruner.pipeline.pruned_model'],
)
"""Models, as ``type='easypruner.ResNetCifar'`` in any MMEngine config."""

DATASETS = Registry(
    'dataset', parent=MMENGINE_DATASETS, scope='easypruner', locations=['easypruner.datasets']
)
"""Data sets, as ``type='easypruner.Digits'`` in any MMEngine config."""
