"""Settings of the process that are changed for a block."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TypeVar

_Value = TypeVar('_Value')


@contextlib.contextmanager
def changed_setting(
    read: Callable[[], _Value], write: Callable[[_Value], object], value: _Value
) -> Iterator[None]:
    """Change a setting for a block, or a function if used as a decorator, and then restore it.

    >>> import torch
    >>> with changed_setting(torch.get_default_dtype, torch.set_default_dtype, torch.float64):
    ...     torch.ones(1).dtype
    torch.float64
    >>> torch.ones(1).dtype
    torch.float32
    """
    before = read()
    write(value)
    try:
        yield
    finally:
        write(before)
