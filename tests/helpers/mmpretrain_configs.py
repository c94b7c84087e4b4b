"""Configs of mmpretrain, chosen by a rule over its folder."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import mmpretrain
from mmengine.config import Config
from mmengine.fileio import load

from easypruner.engine.foreign_configs import enable_foreign_configs

HOME = Path(mmpretrain.__file__).parent / '.mim'
_UNTRAINABLE = ('DeiTClsHead', 'EfficientFormerClsHead', 'LeViTClsHead')
"""Heads whose distillation mmpretrain cannot train."""


def chosen(count: int, most_macs: float) -> list[str]:
    """Return every n-th of mmpretrain's classification configs on ImageNet, as names.

    Args:
        count: the number of configs.
        most_macs: the multiply-adds that a network may have, as its metafile says.
    """
    cheap = [name for name, macs in classifiers() if macs <= most_macs]
    return [cheap[number * len(cheap) // count] for number in range(count)]


@functools.cache
def classifiers() -> tuple[tuple[str, float], ...]:
    """Return name and multiply-adds of each config in a metafile that trains a classifier.

    Left out are configs that MMEngine cannot read, that train on other data than ImageNet or for
    the classes of ImageNet-21k, that need DeepSpeed or FSDP, that start from weights which their
    user has to get, whose head mmpretrain cannot train, or whose images for training have another
    size than its network.
    """
    enable_foreign_configs()
    return tuple(
        (f'mmpretrain::{name.removeprefix("configs/")}', macs)
        for name, macs in sorted(_published().items())
        if 'in21k' not in name and _trains_on_imagenet(HOME / name)
    )


def _published() -> dict[str, float]:
    """Return file -> multiply-adds, as mmpretrain's metafiles say."""
    found = {}
    for metafile in load(HOME / 'model-index.yml')['Import']:
        for model in load(HOME / metafile)['Models']:
            macs = (model.get('Metadata') or {}).get('FLOPs')
            if model.get('Config') and isinstance(macs, int | float):
                found[model['Config']] = float(macs)
    return found


def _trains_on_imagenet(file: Path) -> bool:
    try:
        config = Config.fromfile(file).to_dict()
    # MMEngine raises exceptions of any class for configs that it cannot read.
    except Exception:
        return False
    model, data = config.get('model') or {}, config.get('train_dataloader') or {}
    return (
        model.get('type') == 'ImageClassifier'
        and (data.get('dataset') or {}).get('type') == 'ImageNet'
        and config.get('val_dataloader') is not None
        and config.get('optim_wrapper') is not None
        and 'strategy' not in config
        and (model.get('head') or {}).get('type') not in _UNTRAINABLE
        and not any(each.get('type') == 'Pretrained' for each in _dicts(model))
        and _trains_at_its_size(model, data)
    )


def _trains_at_its_size(model: Mapping[str, Any], data: Mapping[str, Any]) -> bool:
    size = (model.get('backbone') or {}).get('img_size')
    side = size[0] if isinstance(size, list | tuple) else size
    crops = [each for each in _dicts(data) if 'RandomResizedCrop' in str(each.get('type'))]
    return side is None or all(crop.get('scale') == side for crop in crops)


def _dicts(value: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(value, Mapping):
        yield value
    parts = value.values() if isinstance(value, Mapping) else value
    for part in parts if isinstance(value, Mapping | list | tuple) else ():
        yield from _dicts(part)
