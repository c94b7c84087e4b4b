"""Fingerprints of configs, to compare runs and to recognize finished stages."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from mmengine.config import Config

from easypruner.base.distributed import world_size
from easypruner.base.json_fields import content_hash
from easypruner.base.versions import versions_of
from easypruner.engine.runner import RUNNER_KEYS
from easypruner.pipeline.preflight import ALSO_KNOWN, OWN_KEYS
from easypruner.report.recipes import LENGTH, PARTS
from easypruner.strategies.stages.state import Run


class _Absent:
    """What a config does not have."""

    def __repr__(self) -> str:
        return 'absent'


ABSENT = _Absent()
_NOT_HASHED = ('seed', 'randomness', 'work_dir', 'launcher', 'resume')
PACKAGES = ('torch', 'torchvision', 'mmengine', 'mmpretrain', 'mmcv-lite', 'numpy')
"""The packages that results depend on."""
FREE = frozenset({
    'work_dir', 'launcher', 'resume', 'log_level', 'log_processor', 'visualizer', 'val_evaluator',
    'test_dataloader', 'test_evaluator', 'test_cfg', 'default_hooks.checkpoint',
    'default_hooks.logger', 'default_hooks.timer', 'default_hooks.visualization',
    'train_cfg.val_interval', 'train_cfg.val_begin', 'train_cfg.dynamic_intervals',
})  # fmt: skip
"""The paths of a config that may change when a run resumes: the training stays the same."""
_LOADERS = ('train_dataloader', 'val_dataloader')
_FREE_IN_LOADERS = ('num_workers', 'persistent_workers', 'pin_memory', 'prefetch_factor', 'timeout')
_FREE_HOOKS = ('CheckpointHook', 'LoggerHook', 'ProfilerHook', 'TimerHook', 'VisualizationHook')
_CHECKPOINTS = ('checkpoint', 'load_from')


def fingerprint(config: Config) -> str:
    """Return a hash of a config, without its seed and work directory."""
    return _hash({key: value for key, value in config.to_dict().items() if key not in _NOT_HASHED})


def method_fingerprint(config: Config) -> str:
    """Return a hash of what a config's results depend on, without its seed.

    Runs with the same hash are repetitions of one method. The paths of checkpoints are left out,
    because each seed may start from a network of its own.
    """
    content = plain(config.to_dict())
    depends = essential(content) | {'val_evaluator': content.get('val_evaluator')}
    named = {key: value for key, value in depends.items() if key not in _NOT_HASHED}
    return _hash(_without_checkpoints(named))


def _without_checkpoints(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_checkpoints(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    return {
        key: 'a file' if key in _CHECKPOINTS and isinstance(item, str)
        else _without_checkpoints(item)
        for key, item in value.items()
    }  # fmt: skip


def part_fingerprints(config: Config, epochs: int) -> dict[str, str]:
    """Return a hash for each part of a config that comparable runs have in common.

    Args:
        config: the config of a run.
        epochs: the total number of epochs of its training stages; it is a part of the schedule.
    """
    content = config.to_dict()
    parts = {part: {key: content.get(key) for key in keys} for part, keys in PARTS.items()}
    # The stages have epochs of their own, and validation trains nothing.
    length = content.get('train_cfg') or {}
    parts['schedule']['train_cfg'] = {k: v for k, v in length.items() if k not in LENGTH}
    parts['schedule']['epochs'] = epochs
    return {part: _hash(value) for part, value in parts.items()}


def known_keys(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config without helper variables, which have an effect only where they are used."""
    known = RUNNER_KEYS | OWN_KEYS | ALSO_KNOWN
    return {key: value for key, value in content.items() if key in known}


def essential(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return what results depend on in a plain config: everything but :data:`FREE`."""
    kept = {key: item for key, item in known_keys(content).items() if key not in FREE}
    cleaned = {key: _without_free(value, key) for key, value in kept.items()}
    # A list of nothing but free hooks is as good as no list.
    return {key: value for key, value in cleaned.items() if value or 'hooks' not in key}


def run_identity(run: Run) -> dict[str, Any]:
    """Return what must be the same when a run resumes, as types that JSON supports."""
    return {
        'seed': run.seed,
        'processes': world_size(),
        'versions': versions_of(*PACKAGES),
        'config': essential(plain(run.config.to_dict())),
    }


def run_fingerprint(run: Run) -> str:
    """Return the hash of a run that its first stage starts from."""
    identity = run_identity(run)
    # Each stage adds its own config.
    del identity['config']['stages']
    return _hash(identity)


def _without_free(value: Any, path: str) -> Any:
    """Leave out of a value what may change when a run resumes."""
    if path == 'custom_hooks' and isinstance(value, list):
        return [hook for hook in value if not _is_free_hook(hook)]
    if not isinstance(value, Mapping):
        return value
    free = {*FREE, *(f'{loader}.{key}' for loader in _LOADERS for key in _FREE_IN_LOADERS)}
    inner = {key: (item, f'{path}.{key}') for key, item in value.items()}
    return {key: item for key, (item, where) in inner.items() if where not in free}


def _is_free_hook(hook: Any) -> bool:
    name = hook.get('type') if isinstance(hook, Mapping) else hook
    return isinstance(name, str) and name.endswith(_FREE_HOOKS)


def stage_fingerprint(stage: Mapping[str, Any], before: str) -> str:
    """Return a hash of a stage's config and of the hash of the stage before it."""
    return _hash({'stage': stage, 'before': before})


def plain(value: Any) -> Any:
    """Convert a value of a config to types that JSON supports."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return f'{getattr(value, "__module__", "")}.{getattr(value, "__qualname__", value)}'


def differences(before: Any, after: Any, path: str = '') -> list[str]:
    """Return the config paths at which two plain values differ.

    >>> differences({'a': [1, {'b': 2}], 'c': 3}, {'a': [1, {'b': 4}], 'd': 3})
    ['a[1].b', 'c', 'd']
    """
    return [place for place, _, _ in changes(before, after, path)]


def changes(before: Any, after: Any, path: str = '') -> list[tuple[str, Any, Any]]:
    """Return the config paths at which two plain values differ, each with both values.

    A value that is absent is :data:`ABSENT`.

    >>> changes({'a': [1, {'b': 2}]}, {'a': [1, {'b': 4}]})
    [('a[1].b', 2, 4)]
    """
    parts: Iterable[tuple[str, Any, Any]]
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        keys = sorted(before.keys() | after.keys())
        parts = ((f'.{key}', before.get(key, ABSENT), after.get(key, ABSENT)) for key in keys)
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        pairs = enumerate(zip(before, after, strict=True))
        parts = ((f'[{number}]', one, other) for number, (one, other) in pairs)
    else:
        return [] if before == after else [(path, before, after)]
    return [
        found
        for key, one, other in parts
        for found in changes(one, other, f'{path}{key}'.lstrip('.'))
    ]


def _hash(value: Any) -> str:
    return content_hash(plain(value))
