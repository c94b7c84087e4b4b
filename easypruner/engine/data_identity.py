"""What a data set has in it, as a hash: results that were computed on other data do not count."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.registry import DATASETS
from torch import Tensor

from easypruner.base.files import file_hash
from easypruner.base.randomness import fixed_seed
from easypruner.engine.config import building

_SAMPLES = 64


def data_identity(config: Config) -> dict[str, str]:
    """Return data loader -> hash of its data.

    The hash covers the number of samples, the whole list of samples where MMEngine keeps it as
    bytes, and the content of samples that are spread evenly over the data set.

    Args:
        config: the config of a run.
    """
    return {
        key: _dataset_hash(config[key]['dataset'])
        for key in ('train_dataloader', 'val_dataloader')
        if config.get(key) is not None
    }


def _dataset_hash(settings: Any) -> str:
    with building('the data set'):
        dataset = DATASETS.build(settings) if isinstance(settings, Mapping) else settings
    if hasattr(dataset, 'full_init'):
        dataset.full_init()
    length = len(dataset)
    digest = hashlib.sha256(str(length).encode())
    packed = getattr(dataset, 'data_bytes', None)
    if isinstance(packed, np.ndarray):
        digest.update(packed.tobytes())
    for number in sorted({round(i * (length - 1) / (_SAMPLES - 1)) for i in range(_SAMPLES)}):
        for part in _parts(_sample(dataset, number)):
            digest.update(part)
    return digest.hexdigest()


def _sample(dataset: Any, number: int) -> Any:
    """Return a sample before its random transforms, if the data set has such."""
    if hasattr(dataset, 'get_data_info'):
        return dataset.get_data_info(number)
    with fixed_seed(number):
        return dataset[number]


def _parts(value: Any) -> Iterator[bytes]:
    """Yield the content of a sample; of a path, also that of the file."""
    if isinstance(value, Mapping):
        for key in sorted(value, key=str):
            yield str(key).encode()
            yield from _parts(value[key])
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _parts(item)
    elif isinstance(value, Tensor):
        yield np.ascontiguousarray(value.detach().cpu().numpy()).tobytes()
    elif isinstance(value, np.ndarray):
        yield np.ascontiguousarray(value).tobytes()
    elif isinstance(value, str | int | float | bool | None):
        yield repr(value).encode()
        if isinstance(value, str) and is_file(value):
            yield file_hash(value).encode()
    elif hasattr(value, '__dict__'):
        yield from _parts(vars(value))


def is_file(text: str) -> bool:
    """Return whether a text is the path of a file."""
    try:
        return Path(text).is_file()
    except (OSError, ValueError):
        return False
