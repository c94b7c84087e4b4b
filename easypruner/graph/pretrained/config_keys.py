"""The numbers of a config of Hugging Face, and of the configs in it, by their paths."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from easypruner.graph.recording.config_numbers import is_config

Key = tuple[str | int, ...]
"""Names of attributes from the outermost config on, and the position in a list at the end."""


def numbers_in(config: Any) -> Iterator[tuple[Key, int | None]]:
    """Yield each whole number of a config and of those in it, or None where a number may stand."""
    for name in config.to_dict():
        value = getattr(config, name, None)
        if name.startswith('_') or isinstance(value, bool):
            continue
        if is_config(value):
            yield from (((name, *key), number) for key, number in numbers_in(value))
        elif value is None or isinstance(value, int):
            yield (name,), value
        elif isinstance(value, list | tuple):
            whole = all(
                isinstance(number, int) and not isinstance(number, bool) for number in value
            )
            yield from (((name, i), number) for i, number in enumerate(value) if whole)


def set_number(config: Any, key: Key, value: int) -> None:
    """Set a number of a config, or of a config in it."""
    *outer, last = key
    if isinstance(last, int):
        *outer, name = outer
    owner = config
    for part in outer:
        owner = getattr(owner, str(part))
    if isinstance(last, int):
        numbers = list(getattr(owner, str(name)))
        numbers[last] = value
        setattr(owner, str(name), type(getattr(owner, str(name)))(numbers))
    else:
        setattr(owner, last, value)


def name_of(key: Key) -> str:
    """Return a key as text.

    >>> name_of(('text_config', 'hidden_size')), name_of(('hidden_sizes', 2))
    ('text_config.hidden_size', 'hidden_sizes[2]')
    """
    return '.'.join(str(part) for part in key if isinstance(part, str)) + ''.join(
        f'[{part}]' for part in key if isinstance(part, int)
    )


def reread(config: Any) -> Any:
    """Return the config as it is after it was saved and read again."""
    again = read_config(type(config), config.to_json_string())
    _choose_alike(again, config)
    return again


def _choose_alike(config: Any, other: Any) -> None:
    """Choose the same implementation of attention, which is not saved, in all configs inside."""
    for name in ('_attn_implementation_internal', '_experts_implementation_internal'):
        if name in vars(other):
            setattr(config, name, vars(other)[name])
    for name, inner in vars(other).items():
        if is_config(inner) and is_config(getattr(config, name, None)):
            _choose_alike(getattr(config, name), inner)


def read_config(kind: Any, text: str) -> Any:
    """Return a config of a class from the text of its file."""
    # Only from files does the class read infinite numbers as it writes them.
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / 'config.json'
        file.write_text(text, encoding='utf-8')
        return kind.from_json_file(file)
