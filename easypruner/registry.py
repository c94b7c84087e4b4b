"""The registries of models and data sets, in which MMEngine looks up the scope ``easypruner``."""

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
"""Models: an MMEngine config names one as ``type='easypruner.ResNetCifar'``."""

DATASETS = Registry(
    'dataset', parent=MMENGINE_DATASETS, scope='easypruner', locations=['easypruner.datasets']
)
"""Data sets: an MMEngine config names one as ``type='easypruner.Digits'``."""
