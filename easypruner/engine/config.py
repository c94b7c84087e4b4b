"""Reading configs, and reporting exceptions of MMEngine's builders as mistakes in the config."""

from __future__ import annotations

import math
import re
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmengine.config import Config

from easypruner.base.describe import shown
from easypruner.engine.config_keys import NO_KEYS, FileKeys, mark_unchecked
from easypruner.engine.foreign_configs import base_files, enable_foreign_configs
from easypruner.engine.shares import mark_schedule
from easypruner.engine.stage_keys import numbered, stage_names
from easypruner.engine.unknown_names import explain_argument, explain_unknown
from easypruner.errors import ConfigError, EasyPrunerError, Mistakes

_DICT = (Mapping,), 'a dict'
_LIST = (list, tuple), 'a list'
_EITHER = (Mapping, list, tuple), 'a dict or a list of dicts'
_TEXT = (str,), 'a string'
_KINDS: Mapping[str, tuple[tuple[type, ...], str]] = {
    **dict.fromkeys(
        ('model', 'data_preprocessor', 'train_dataloader', 'val_dataloader', 'train_cfg', 'val_cfg',
         'optim_wrapper', 'default_hooks', 'env_cfg', 'log_processor', 'visualizer', 'randomness',
         'auto_scale_lr', 'model_wrapper_cfg', 'graph'), _DICT),
    'custom_hooks': _LIST,
    **dict.fromkeys(('val_evaluator', 'param_scheduler'), _EITHER),
    **dict.fromkeys(('default_scope', 'work_dir', 'experiment_name'), _TEXT),
    'load_from': ((str, Mapping), 'the path of a checkpoint, or dict(checkpoint=PATH, ...)'),
    'log_level': ((str, int), "a level such as 'INFO'"),
    'custom_imports': ((Mapping, list, tuple, str), 'names of modules, or dict(imports=[...])'),
}  # fmt: skip
"""Key of a config -> the types that its value may have, and their description; None is absent."""

_BUILT_BY = {
    '_check_scheduler_cfg': 'param_scheduler', 'setup_env': 'env_cfg', '_log_env': 'env_cfg',
    'set_randomness': 'randomness', 'build_log_processor': 'log_processor',
    'build_logger': 'log_level', 'build_visualizer': 'visualizer', 'build_model': 'model',
    'wrap_model': 'model_wrapper_cfg', 'register_default_hooks': 'default_hooks',
    'register_custom_hooks': 'custom_hooks', 'build_train_loop': 'train_cfg',
    'build_val_loop': 'val_cfg', 'build_optim_wrapper': 'optim_wrapper',
    'build_param_scheduler': 'param_scheduler', 'build_evaluator': 'val_evaluator',
}  # fmt: skip
"""Method of MMEngine's Runner -> the key of the config that it builds something from."""


DEFAULT_SCOPE = 'mmpretrain'
"""The package whose classes a config names if it has no ``default_scope``."""

_SCHEDULERS = 'param_scheduler'
_METHOD = re.compile(r'\bRunner\.(\w+)\(\)')
_MIXED_STYLES = re.compile(
    r'must match the current configuration file type.* in (\S+\.py)', re.DOTALL
)


@contextmanager
def building(what: str = '') -> Iterator[None]:
    """Convert the exceptions of a builder into a ConfigError.

    Args:
        what: a name for the object that is built; empty if the config path of the mistake names it.

    Raises:
        ConfigError: the builder raised an exception; the message has its first line.
    """
    subject = f'{what} ' if what else ''
    try:
        yield
    except EasyPrunerError:
        raise
    except OSError as error:
        raise ConfigError(
            f'{subject}cannot be read: {_first_line(error)}; '
            'put the data there, or correct the path'
        ) from error
    # Builders of other packages raise exceptions of any class for wrong arguments.
    except Exception as error:
        raise ConfigError(f'{subject}cannot be built: {_first_line(error)}') from error


@contextmanager
def building_runner() -> Iterator[None]:
    """Convert the exceptions of building a Runner or its parts into a ConfigError.

    Raises:
        ConfigError: the message names the key of the config.
    """
    try:
        with building():
            yield
    except ConfigError as error:
        cause = error.__cause__
        if cause is None:
            raise
        # A method that does not take an argument is not in the traceback.
        called = _METHOD.findall(str(cause))
        names = called + [frame.name for frame in traceback.extract_tb(cause.__traceback__)]
        key = next((_BUILT_BY[name] for name in names if name in _BUILT_BY), '')
        raise ConfigError(f'{key}: {error}' if key else f'the runner {error}') from cause


def model_settings(config: Config) -> dict[str, Any]:
    """Return the settings of a config's model, including a data preprocessor of the config."""
    settings: dict[str, Any] = config.model.to_dict()
    if config.get('data_preprocessor') is not None:
        settings.setdefault('data_preprocessor', config.data_preprocessor.to_dict())
    return settings


def _first_line(error: BaseException) -> str:
    # str() of a KeyError is the repr of its message.
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    unknown = explain_unknown(text)
    if unknown is not None:
        return unknown
    lines = text.strip().splitlines()
    hint = explain_argument(error)
    more = f'; {hint}' if hint else ''
    return f'{type(error).__name__}: {lines[0]}{more}' if lines else type(error).__name__


def read_config(
    path: str | Path,
    options: Mapping[str, Any],
    *,
    foreign: bool = False,
    complete: Callable[[Config], Config] = lambda config: config,
    source: str = '--cfg-options ',
) -> Config:
    """Read a config and apply options such as ``--cfg-options``.

    Args:
        path: the path of the config.
        options: config path -> value.
        foreign: whether another package ships the config, so that its own keys are not checked.
        complete: adds to the config before the options are applied, such as the stages of a recipe.
        source: what gives the options, as the beginning of messages about them.

    Raises:
        ConfigError: the config cannot be read, or it does not have the key of an option.
    """
    config = complete(config_of_file(path))
    own = NO_KEYS if foreign else FileKeys.of(Path(path))
    epochs = _written_for(path, config, own)
    _apply(options, config, source)
    _check_values(config)
    if config.get('default_scope') is None:
        # MMEngine's Runner would look for classes in MMEngine alone.
        config.default_scope = DEFAULT_SCOPE
    mark_unchecked(config, own, options)
    rewritten = any(key.partition('.')[0] == _SCHEDULERS for key in options)
    mark_schedule(config, None if rewritten else epochs)
    return config


def _apply(options: Mapping[str, Any], config: Config, source: str) -> None:
    """Set the keys of a config that options name, stages by their number or name."""
    names = stage_names(config.get('stages'))
    mistakes = Mistakes()
    for key, value in options.items():
        try:
            config.merge_from_dict({numbered(key, names): value}, allow_list_keys=True)
        except ConfigError as error:  # noqa: PERF203
            mistakes.add(f'{source}{error}')
        except (KeyError, TypeError, AssertionError, IndexError, AttributeError):
            reason = _no_such_key(config, numbered(key, names))
            mistakes.add(f'{source}{key}={value}: the config does not have this key{reason}')
    mistakes.raise_all()


def _no_such_key(config: Config, key: str) -> str:
    """Return why a config cannot have a key, to be appended; '' if that is not known."""
    value: Any = config.to_dict()
    parts = key.split('.')
    for number, part in enumerate(parts):
        path = '.'.join(parts[:number])
        if isinstance(value, list | tuple):
            if not part.isdecimal() or int(part) >= len(value):
                return f': {path} is a list of {len(value)} entries, which are numbered from 0'
            value = value[int(part)]
        elif isinstance(value, Mapping):
            value = value.get(part, {})
        else:
            return f': {path} is {shown(value)}, which has no keys'
    return ''


def _written_for(path: str | Path, config: Config, own: FileKeys) -> Any:
    """Return the number of epochs for which the schedulers of a config were written, if known."""
    found = _max_epochs(config)
    if 'train_cfg' not in own.written or _SCHEDULERS in own.written:
        return found
    for base in base_files(path):
        epochs = _max_epochs(config_of_file(base))
        if epochs is not None:
            return epochs
    return found


def _max_epochs(config: Config) -> Any:
    # Values are checked later, after --cfg-options have changed them.
    settings = config.get('train_cfg')
    return settings.get('max_epochs') if isinstance(settings, Mapping) else None


def config_of_file(path: str | Path) -> Config:
    """Read the config in a file, with its bases.

    Raises:
        ConfigError: the config cannot be read.
    """
    enable_foreign_configs()
    try:
        return Config.fromfile(str(path), import_custom_modules=False)
    except (EasyPrunerError, FileNotFoundError) as error:
        raise ConfigError(f'{str(path)!r}: a base config is missing: {error}') from error
    except Exception as error:
        raise ConfigError(f'{str(path)!r} cannot be read as a config: {_reason(error)}') from error


def _reason(error: Exception) -> str:
    """Return why MMEngine could not read a config."""
    if isinstance(error, RuntimeError) and not str(error):
        # MMEngine raises it where a config of the new style calls what it has imported.
        return (
            'it calls something that it imports, which a config cannot; the network of a file with '
            'code is given as FILE.py:FUNCTION'
        )
    mixed = _MIXED_STYLES.search(str(error))
    if mixed is None:
        return f'{type(error).__name__}: {error}'
    return (
        f'its base {mixed[1]!r} imports a module, which makes it a config of the new style, and '
        'MMEngine cannot mix the styles; copy this base without the import, and inherit the copy'
    )


def _check_values(config: Config) -> None:
    """Raise ConfigError for values of a wrong type at the top, and for numbers that are NaN."""
    mistakes = Mistakes()
    for key, value in config.to_dict().items():
        if key in _KINDS and value is not None:
            kinds, expected = _KINDS[key]
            if not isinstance(value, kinds) or isinstance(value, bool):
                mistakes.add(f'expected {expected}, got {shown(value)}', key)
        for path in _nan_paths(value, key):
            mistakes.add('the value is NaN, which is not a number; expected a number', path)
    mistakes.raise_all()


def _nan_paths(value: Any, path: str) -> Iterator[str]:
    """Yield the path of every NaN inside a value of a config."""
    if isinstance(value, float) and math.isnan(value):
        yield path
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _nan_paths(item, f'{path}.{key}')
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            yield from _nan_paths(item, f'{path}[{number}]')
