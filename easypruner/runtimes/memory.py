"""Memory: how much more a process uses while something runs, at its peak. Only Linux reports it."""

from __future__ import annotations

import contextlib
import ctypes
import gc
from collections.abc import Callable
from pathlib import Path

_STATUS, _RESET = Path('/proc/self/status'), Path('/proc/self/clear_refs')
_RESET_PEAK = '5'


def peak_memory(run: Callable[[], object]) -> int | None:
    """Return the bytes by which a function raises the memory of the process, at its peak.

    Memory that was freed before goes back to the system first, so that it does not hide what the
    function takes.

    Args:
        run: the function; what it returns lives until the peak is read.

    Returns:
        the bytes; None on systems that do not report them.
    """
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL('libc.so.6').malloc_trim(0)
    try:
        _RESET.write_text(_RESET_PEAK)
        before = _status('VmRSS')
    except (OSError, KeyError):
        return None
    kept = run()
    peak = _status('VmHWM')
    del kept
    return max(peak - before, 0)


def _status(field: str) -> int:
    """Return a field of the status of this process, in bytes."""
    lines = _STATUS.read_text(encoding='utf-8').splitlines()
    fields = dict(line.partition(':')[::2] for line in lines)
    return int(fields[field].split()[0]) * 1024
