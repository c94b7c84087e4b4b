"""Settings that MMEngine reads late or not at all: they are checked before a run starts."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from mmengine.config import Config
from mmengine.registry import VISBACKENDS

from easypruner.base.checks import check_count
from easypruner.base.describe import shown
from easypruner.engine.config_keys import unchecked_keys
from easypruner.engine.unknown_names import check_known
from easypruner.errors import ConfigError, Mistakes, nearest

_ENVIRONMENT = ('cudnn_benchmark', 'mp_cfg', 'dist_cfg', 'resource_limit')
"""What MMEngine's Runner reads of ``env_cfg``; it ignores everything else."""

_DEFAULT = 'DefaultOptimWrapperConstructor'
_BY_PARAMETER: Sequence[str] = (
    'bias_lr_mult', 'bias_decay_mult', 'norm_decay_mult', 'flat_decay_mult', 'dwconv_decay_mult',
    'dcn_offset_lr_mult', 'bypass_duplicate', 'custom_keys',
)  # fmt: skip
"""What MMEngine's own constructor of optimizers reads of ``paramwise_cfg``."""
_BY_NAME: Sequence[str] = ('lr_mult', 'decay_mult')
"""What it reads of an entry of ``custom_keys``."""
_LEVELS = ('CRITICAL', 'ERROR', 'WARNING', 'INFO', 'DEBUG')


def check_late_settings(config: Config, mistakes: Mistakes) -> None:
    """Check the settings of a config that would be ignored, or fail after the first epoch.

    Args:
        config: the config; the default scope is set.
        mistakes: gets the mistakes.
    """
    content = config.to_dict()
    if 'env_cfg' not in unchecked_keys(config):
        for name in content.get('env_cfg') or ():
            if name not in _ENVIRONMENT:
                hint = nearest(str(name), _ENVIRONMENT)
                mistakes.add(f'MMEngine does not read {name!r}; {hint}', 'env_cfg')
    if 'optim_wrapper' not in unchecked_keys(config):
        for path, message in _ignored_by_parameter(content.get('optim_wrapper')):
            mistakes.add(message, path)
    training = content.get('train_cfg') or {}
    with mistakes.collect('train_cfg'):
        if training.get('val_interval') is not None:
            check_count(training['val_interval'], 'val_interval', 'train_cfg')
    with mistakes.collect('log_level'):
        _check_level(content.get('log_level'))
    for path, backend in _backends(content.get('visualizer')):
        with mistakes.collect(path):
            check_known(VISBACKENDS, 'backend', backend)


def ignored_warnings(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return a warning for each setting of MMEngine's Runner that a run does not read."""
    if not config.get('resume'):
        return ()
    return (f'resume={shown(config["resume"])} is ignored; --resume continues a run',)


def _ignored_by_parameter(wrapper: Any) -> Iterator[tuple[str, str]]:
    """Yield (path, message) for what MMEngine's own constructor does not read."""
    wrapper = wrapper if isinstance(wrapper, Mapping) else {}
    given = wrapper.get('paramwise_cfg')
    if not isinstance(given, Mapping) or wrapper.get('constructor', _DEFAULT) != _DEFAULT:
        return
    path = 'optim_wrapper.paramwise_cfg'
    single = given.get('custom_keys')
    parts = [(path, given, _BY_PARAMETER)]
    if isinstance(single, Mapping):
        own = [(f'{path}.custom_keys[{n!r}]', v) for n, v in single.items()]
        parts += [(place, v, _BY_NAME) for place, v in own if isinstance(v, Mapping)]
    for place, settings, known in parts:
        for name in settings:
            # An entry of custom_keys may have any option of the optimizer.
            open_ended = known is _BY_NAME and not get_close_matches(str(name), known, cutoff=0.8)
            if name not in known and not open_ended:
                yield place, f'MMEngine does not read {name!r}; {nearest(str(name), known)}'


def _check_level(level: Any) -> None:
    """Raise ConfigError for a level of a log that Python does not know."""
    # The function returns the number of a name that it knows.
    if isinstance(level, str) and not isinstance(logging.getLevelName(level), int):
        raise ConfigError(f'unknown level {shown(level)}; {nearest(level, _LEVELS)}')


def _backends(visualizer: Any) -> Iterator[tuple[str, str]]:
    """Yield (path, name) of each backend of a visualizer."""
    given = visualizer.get('vis_backends') if isinstance(visualizer, Mapping) else None
    listed = given if isinstance(given, list | tuple) else [given]
    for number, backend in enumerate(listed):
        name = backend.get('type') if isinstance(backend, Mapping) else None
        if isinstance(name, str):
            yield f'visualizer.vis_backends[{number}]', name
