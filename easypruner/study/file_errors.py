"""What is wrong in a Python file of a user, and in which line."""

from __future__ import annotations

import ast
import inspect
import re
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType

from easypruner.errors import EasyPrunerError, nearest

_UNEXPECTED = re.compile(r"(\w+)\(\) got an unexpected keyword argument '(\w+)'")


def location_of(error: BaseException, path: Path) -> str:
    """Return a file, and the line of it that raised an error if it is known."""
    line = error.lineno if isinstance(error, SyntaxError) else None
    inside = isinstance(error, SyntaxError) and error.filename != str(path)
    if line is None or inside:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == str(path)]
        line = lines[-1] if lines else None
    return f'{str(path)!r}' if line is None else f'{str(path)!r}, line {line}'


def problem_of(error: BaseException) -> str:
    """Return the message of an error that a file has raised.

    A wrong argument of a function in the file, such as ``tune(trial=3)``, has the nearest name.
    """
    if isinstance(error, EasyPrunerError):
        return str(error)
    if isinstance(error, SyntaxError):
        return f'{type(error).__name__}: {error.msg}'
    text = f'{type(error).__name__}: {error}' if str(error) else type(error).__name__
    unexpected = _UNEXPECTED.search(str(error)) if isinstance(error, TypeError) else None
    if unexpected is None:
        return text
    function = _called(error, unexpected[1])
    known = inspect.signature(function).parameters if function else ()
    return f'{text}; {nearest(unexpected[2], known)}' if known else text


def _called(error: BaseException, name: str) -> FunctionType | None:
    """Return the function that was called by its name where an error was raised."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    found = frame.f_globals.get(name)
    return found if isinstance(found, FunctionType) else None


def repeated_keys(path: Path) -> Iterator[str]:
    """Yield a mistake for each key that a dict in a file has twice: Python keeps only the last."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if not isinstance(node, ast.Dict):
            continue
        seen = set()
        for key in node.keys:
            if not isinstance(key, ast.Constant):
                continue
            if key.value in seen:
                yield (
                    f'line {key.lineno} has the key {key.value!r} for the second time in one dict, '
                    'of which Python keeps the last; give another name'
                )
            seen.add(key.value)
