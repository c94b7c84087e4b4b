"""The text of a config file whose paths are relative to its folder."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config

_FOLDER = '{{ fileDirname }}'
"""The folder of a config, which MMEngine inserts when it reads the config."""


class _Infinite(float):
    """Infinity, in a form that Python reads."""

    def __repr__(self) -> str:
        return f"float('{float.__repr__(self)}')"

    __str__ = __repr__


def beside(name: str) -> str:
    """Return the path of a file in the folder of the config, for :func:`config_text`."""
    return f'{_FOLDER}/{name}'


def config_text(content: Mapping[str, Any], folder: Path) -> str:
    """Return the text of a config file.

    Args:
        content: the content; paths from :func:`beside` stay relative to the file.
        folder: the folder of the file.
    """
    # yapf, which MMEngine would format the text with, takes long and fails when interrupted.
    text: str = Config(_readable(content), format_python_code=False).pretty_text
    if '\\' in str(folder) or '"""' in str(folder):
        # MMEngine cannot insert such a path, so the folder cannot be moved.
        return text.replace(f"'{_FOLDER}/", f"{str(folder)!r} + '/")
    # The folder may have quotes.
    for part in text.split(f"'{_FOLDER}/")[1:]:
        name = part.partition("'")[0]
        text = text.replace(f"'{_FOLDER}/{name}'", f'r"""{_FOLDER}/{name}"""')
    return text


def _readable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _readable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_readable(item) for item in value)
    return _Infinite(value) if isinstance(value, float) and math.isinf(value) else value
