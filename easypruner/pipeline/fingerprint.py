"""Fingerprints of configs, to compare runs and to recognize finished stages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from mmengine.config import Config

from easypruner.base.json_fields import content_hash

_ABSENT = object()
_NOT_HASHED = ('seed', 'randomness', 'work_dir', 'launcher', 'resume')
_PARTS = {
    'model': ('model', 'data_preprocessor'),
    'data': ('train_dataloader', 'val_dataloader', 'val_evaluator'),
    'graph': ('graph',),
    'schedule': ('optim_wrapper', 'param_scheduler', 'train_cfg'),
}


def fingerprint(config: Config) -> str:
    """Return a hash of a config, without its seed and work directory."""
    return _hash({key: value for key, value in config.to_dict().items() if key not in _NOT_HASHED})


def part_fingerprints(config: Config, epochs: int) -> dict[str, str]:
    """Return a hash for each part of a config that comparable runs have in common.

    Args:
        config: the config of a run.
        epochs: the total number of epochs of its training stages; it is a part of the schedule.
    """
    content = config.to_dict()
    parts = {part: {key: content.get(key) for key in keys} for part, keys in _PARTS.items()}
    parts['schedule']['epochs'] = epochs
    return {part: _hash(value) for part, value in parts.items()}


def stage_fingerprint(stage: Mapping[str, Any], before: str) -> str:
    """Return a hash of a stage's config and of the hash of the stage before it."""
    return _hash({'stage': stage, 'before': before})


def plain(value: Any) -> Any:
    """Convert a value of a config to types that JSON supports."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return f'{getattr(value, "__module__", "")}.{getattr(value, "__qualname__", value)}'


def differences(before: Any, after: Any, path: str = '') -> list[str]:
    """Return the config paths at which two plain values differ.

    >>> differences({'a': [1, {'b': 2}], 'c': 3}, {'a': [1, {'b': 4}], 'd': 3})
    ['a[1].b', 'c', 'd']
    """
    parts: Iterable[tuple[str, Any, Any]]
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        keys = sorted(before.keys() | after.keys())
        parts = ((f'.{key}', before.get(key, _ABSENT), after.get(key, _ABSENT)) for key in keys)
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        pairs = enumerate(zip(before, after, strict=True))
        parts = ((f'[{number}]', one, other) for number, (one, other) in pairs)
    else:
        return [] if before == after else [path]
    return [
        found
        for key, one, other in parts
        for found in differences(one, other, f'{path}{key}'.lstrip('.'))
    ]


def _hash(value: Any) -> str:
    return content_hash(plain(value))
