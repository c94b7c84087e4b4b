"""Claims: of several processes that need the same work, one does it and the others wait."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from easypruner.base.files import make_folder
from easypruner.base.lock import BEAT, SILENT, Owner

_PAUSE = 0.5


@contextmanager
def claimed(
    path: Path,
    waiting: Callable[[Owner | None], object],
    is_needed: Callable[[], bool] = lambda: True,
) -> Iterator[None]:
    """Own a claim in the block; wait while a living process owns it.

    A claim saves work and protects nothing: a process that loses it, because its file system or its
    signs of life fail, goes on, and the work is done twice.

    Args:
        path: the file of the claim.
        waiting: called once with the owner, if this process has to wait.
        is_needed: tells, after each pause, whether there is still work to do; if not, the block
            starts without the claim.
    """
    owner = Owner.this_process()
    # Where it cannot be, there are no claims.
    with contextlib.suppress(OSError):
        make_folder(path.parent)
    has_waited = False
    while not _place(path, owner) and is_needed():
        found = _read(path)
        if _is_stale(path, found):
            _remove(path, found)
            continue
        if not has_waited:
            waiting(found)
            has_waited = True
        time.sleep(_PAUSE)
    end = threading.Event()
    threading.Thread(target=_live, args=[path, end], daemon=True).start()
    try:
        yield
    finally:
        end.set()
        _remove(path, owner)


def _place(path: Path, owner: Owner) -> bool:
    """Write a claim unless there is one."""
    temporary = path.with_name(f'.{path.name}.{owner.token}')
    try:
        temporary.write_text(json.dumps(asdict(owner)), encoding='utf-8')
        # A link appears at once with its content.
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError:
        # On a file system without links, or one that is read-only, two processes may do the same.
        return True
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    return True


def _read(path: Path) -> Owner | None:
    try:
        return Owner.read(path.read_bytes())
    except OSError:
        return None


def _is_stale(path: Path, owner: Owner | None) -> bool:
    if owner is not None and owner.is_local:
        return not owner.is_running
    try:
        return time.time() - path.stat().st_mtime > SILENT
    except OSError:
        # It has been released.
        return True


def _remove(path: Path, owner: Owner | None) -> None:
    """Remove a claim if it is still that of its owner."""
    found = _read(path)
    if (found and found.token) == (owner and owner.token):
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def _live(path: Path, end: threading.Event) -> None:
    """Give signs of life until the block ends."""
    while not end.wait(BEAT):
        with contextlib.suppress(OSError):
            os.utime(path)
