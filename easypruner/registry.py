"""The registries in which MMEngine looks up the scope ``easypruner``: models, data sets, ..."""

from __future__ import annotations

from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import OPTIM_WRAPPERS as MMENGINE_OPTIM_WRAPPERS
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

OPTIM_WRAPPERS = Registry(
    'optim_wrapper',
    parent=MMENGINE_OPTIM_WRAPPERS,
    scope='easypruner',
    locations=['easypruner.engine.amp'],
)
"""Optimizer wrappers: training stages use them on devices that MMEngine's do not support."""

HOOKS = Registry(
    'hook', parent=MMENGINE_HOOKS, scope='easypruner', locations=['easypruner.engine.memory_format']
)
"""Hooks: an MMEngine config names one as ``type='easypruner.ChannelsLastHook'``."""
