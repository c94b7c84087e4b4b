"""Fingerprints of configs: what tells two runs, or two halves of one, apart."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config

_APART = ('seed', 'randomness', 'work_dir', 'launcher', 'resume')
_PARTS = {
    'model': ('model', 'data_preprocessor'),
    'data': ('train_dataloader', 'val_dataloader', 'val_evaluator'),
    'graph': ('graph',),
    'schedule': ('optim_wrapper', 'param_scheduler', 'train_cfg'),
}


def fingerprint(config: Config) -> str:
    """Return a hash of a config without its seed and work directory."""
    content = {key: value for key, value in config.to_dict().items() if key not in _APART}
    return _hash(content)


def part_fingerprints(config: Config, epochs: int) -> dict[str, str]:
    """Return part -> hash, for what runs must share to be compared like for like.

    Args:
        config: of a run.
        epochs: that all its training stages together run; they belong to the schedule.
    """
    content = config.to_dict()
    parts = {part: {key: content.get(key) for key in keys} for part, keys in _PARTS.items()}
    parts['schedule']['epochs'] = epochs
    return {part: _hash(value) for part, value in parts.items()}


def stage_fingerprint(stage: Mapping[str, Any], before: str) -> str:
    """Return a hash of a stage's config and of all that came before it."""
    return _hash({'stage': stage, 'before': before})


def plain(value: Any) -> Any:
    """Return a config's value as JSON can hold it."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return f'{getattr(value, "__module__", "")}.{getattr(value, "__qualname__", value)}'


def differences(before: Any, after: Any, path: str = '') -> list[str]:
    """Return the places where two plain values differ.

    >>> differences({'a': [1, {'b': 2}], 'c': 3}, {'a': [1, {'b': 4}], 'd': 3})
    ['a[1].b', 'c', 'd']
    """
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        places = []
        for key in sorted(before.keys() | after.keys()):
            place = f'{path}.{key}' if path else key
            if key in before and key in after:
                places += differences(before[key], after[key], place)
            else:
                places.append(place)
        return places
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        return [
            place
            for i, (one, other) in enumerate(zip(before, after, strict=True))
            for place in differences(one, other, f'{path}[{i}]')
        ]
    return [] if before == after else [path]


def _hash(value: Any) -> str:
    text = json.dumps(plain(value), sort_keys=True, separators=(',', ':'))
    return hashlib.sha256(text.encode()).hexdigest()
