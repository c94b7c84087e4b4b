"""Reading configs, and reporting exceptions of MMEngine's builders as mistakes in the config."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmengine.config import Config

from easypruner.errors import ConfigError, EasyPrunerError, Mistakes


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


def model_settings(config: Config) -> dict[str, Any]:
    """Return the settings of a config's model, including a data preprocessor of the config."""
    settings: dict[str, Any] = config.model.to_dict()
    if config.get('data_preprocessor') is not None:
        settings.setdefault('data_preprocessor', config.data_preprocessor.to_dict())
    return settings


def _first_line(error: BaseException) -> str:
    # str() of a KeyError is the repr of its message.
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    lines = text.strip().splitlines()
    return f'{type(error).__name__}: {lines[0]}' if lines else type(error).__name__


def read_config(path: str | Path, options: Mapping[str, Any]) -> Config:
    """Read a config and apply ``--cfg-options``.

    Raises:
        ConfigError: the config cannot be read, or it does not have the key of an option.
    """
    try:
        config = Config.fromfile(str(path), import_custom_modules=False)
    except FileNotFoundError as error:
        raise ConfigError(f'{str(path)!r}: a base config is missing: {error}') from error
    except Exception as error:
        raise ConfigError(
            f'{str(path)!r} cannot be read as a config: {type(error).__name__}: {error}'
        ) from error
    mistakes = Mistakes()
    for key, value in options.items():
        try:
            config.merge_from_dict({key: value}, allow_list_keys=True)
        except (KeyError, TypeError, AssertionError, IndexError, AttributeError):  # noqa: PERF203
            mistakes.add(f'--cfg-options {key}={value}: the config does not have this key')
    mistakes.raise_all()
    return config
