"""The line of a user's code, or of a library of models, at which an error was raised."""

from __future__ import annotations

import os
import traceback
from pathlib import Path
from types import TracebackType

import torch

_PACKAGE = Path(__file__).parents[1]
_FOREIGN = tuple(
    f'{folder}{os.sep}'
    for folder in (_PACKAGE / 'graph', _PACKAGE / 'runtimes', Path(torch.__file__).parent)
)
"""The folders of what runs networks. The models of this package are like those of users."""
_STANDARD = str(Path(traceback.__file__).parent)


def user_line(trace: TracebackType | None, caller: str = '') -> str:
    """Return file:line and text of the innermost frame of a network; '' if there is none.

    Args:
        trace: the traceback of the error.
        caller: the file of this package that has called the user's code. What is outside of its
            last frame does not count, such as the script that uses this package.
    """
    for frame in reversed(traceback.extract_tb(trace)):
        if caller and frame.filename == caller:
            return ''
        if not is_foreign(frame.filename):
            return f'{Path(frame.filename).name}:{frame.lineno}, {frame.line!r}'
    return ''


def is_foreign(file: str) -> bool:
    """Return whether a file is of torch, of what runs networks, or of the standard library."""
    is_standard = file.startswith(_STANDARD) and 'site-packages' not in file
    return is_standard or file.startswith(_FOREIGN)
