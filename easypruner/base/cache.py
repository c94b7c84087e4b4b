"""The user's cache: measurements that belong to a machine, and are made again if they are lost."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from easypruner.base.files import write_json
from easypruner.base.json_fields import Field, check_hash, read_json, with_hash
from easypruner.errors import EasyPrunerError

_Value = TypeVar('_Value')


def cache_folder() -> Path:
    """Return the folder of EasyPruner's cache.

    It is ``$EASYPRUNER_CACHE``, or ``$XDG_CACHE_HOME/easypruner``, or ``~/.cache/easypruner``.
    """
    own, home = os.environ.get('EASYPRUNER_CACHE'), os.environ.get('XDG_CACHE_HOME')
    if own:
        return Path(own)
    return (Path(home) if home else Path.home() / '.cache') / 'easypruner'


def cached(
    kind: str,
    key: Mapping[str, Any],
    make: Callable[[], Mapping[str, Any]],
    read: Callable[[Field], _Value],
) -> _Value:
    """Return a value from the cache, or make it and store it.

    An entry that is damaged is made again. If the cache cannot be written, nothing is stored.

    Args:
        kind: the folder of such values in the cache.
        key: what the value depends on; it is stored beside the value.
        make: makes the value, as a dict that JSON can express.
        read: reads the value from JSON; it raises EasyPrunerError for a damaged one.
    """
    text = json.dumps(key, sort_keys=True)
    file = cache_folder() / kind / f'{hashlib.sha256(text.encode()).hexdigest()[:24]}.json'
    try:
        content = read_json(file)
        check_hash(content)
        return read(content['value'])
    except (EasyPrunerError, OSError):
        value = dict(make())
    with contextlib.suppress(OSError):
        write_json(file, with_hash({'key': dict(key), 'value': value}))
    return read(Field(value, str(file)))


def processor() -> str:
    """Return the name of the machine's processor."""
    try:
        lines = Path('/proc/cpuinfo').read_text(encoding='utf-8').splitlines()
    except OSError:
        lines = []
    names = (line.partition(':')[2].strip() for line in lines if line.startswith('model name'))
    return next(names, '') or platform.processor() or platform.machine()
