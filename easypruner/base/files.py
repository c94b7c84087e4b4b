"""Atomic writing: a file is written completely or not at all."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any


def write_with(path: str | os.PathLike[str], write: Callable[[Path], object]) -> None:
    """Call ``write`` with the path of a temporary file, then rename that file to ``path``.

    If ``write`` fails, the old file stays as it was. Missing parent folders are created.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f'.{target.stem}.{secrets.token_hex(8)}{target.suffix}')
    try:
        write(temporary)
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_whole(path: str | os.PathLike[str], content: str | bytes) -> None:
    """Write ``content`` to ``path`` atomically, text as UTF-8."""
    data = content.encode() if isinstance(content, str) else content
    write_with(path, lambda temporary: temporary.write_bytes(data))


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write ``value`` as indented JSON to ``path`` atomically."""
    write_whole(path, json.dumps(value, indent=2, allow_nan=False) + '\n')
