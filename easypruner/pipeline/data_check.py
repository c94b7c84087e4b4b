"""The data loaders and the evaluator of a config, built and checked before a run."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from easypruner.base.checks import check_count
from easypruner.engine.config import building
from easypruner.engine.runner import OF_WORKERS
from easypruner.errors import ConfigError, Mistakes

_MOST_WORKERS = 1024


def build_loader(config: Config, name: str, mistakes: Mistakes) -> DataLoader[Any] | None:
    """Return a data loader without worker processes; None after a mistake."""
    settings = config.to_dict().get(name)
    if not isinstance(settings, Mapping):
        return None
    without_workers = {key: value for key, value in settings.items() if key not in OF_WORKERS}
    workers = {key: settings[key] for key in OF_WORKERS if key in settings}
    if name == 'train_dataloader':
        workers.pop('persistent_workers', None)
    with mistakes.collect(name), building():
        check_count(workers.get('num_workers', 0), 'num_workers', name, least=0, most=_MOST_WORKERS)
        _check_reading(settings)
        loader: DataLoader[Any] = Runner.build_dataloader(without_workers)
        with warnings.catch_warnings():
            # A run repeats torch's advice on the number of workers.
            warnings.simplefilter('ignore')
            DataLoader(loader.dataset, **workers)
        if not hasattr(loader.dataset, '__len__'):
            raise ConfigError(
                f'the data set {type(loader.dataset).__name__} has no length, but stages count '
                'epochs; give it __len__, the number of samples of an epoch'
            )
        if not len(loader) and len(loader.dataset):
            raise ConfigError(
                f'there is no whole batch: the data set has {len(loader.dataset)} samples, and '
                f'drop_last leaves out batches of less than batch_size={loader.batch_size}; use a '
                'smaller batch_size'
            )
        if not len(loader):
            raise ConfigError('the data set is empty; expected at least one sample')
        return loader
    return None


def _check_reading(settings: Mapping[str, Any]) -> None:
    """Raise ConfigError if a data loader does not say in which order it reads samples."""
    if 'sampler' not in settings and 'batch_sampler' not in settings:
        raise ConfigError(
            'there is no sampler, which MMEngine needs in place of shuffle; add '
            "sampler=dict(type='DefaultSampler', shuffle=...)"
        )


def check_evaluator(config: Config, mistakes: Mistakes) -> bool:
    """Return whether the evaluator of a config, if it has one, can be built."""
    known = len(mistakes.found)
    if config.get('val_evaluator') is not None:
        with mistakes.collect('val_evaluator'), building():
            # The method does not use its runner.
            Runner.build_evaluator(None, config.to_dict()['val_evaluator'])
    return len(mistakes.found) == known
