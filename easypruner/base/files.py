"""Atomic writing: a file is written completely, down to the disk, or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

_PART = 2**20


def write_with(path: str | os.PathLike[str], write: Callable[[Path], object]) -> None:
    """Call ``write`` with the path of a temporary file, then rename that file to ``path``.

    If ``write`` fails, the old file stays as it was. Missing parent folders are created. On return
    the file and its name are on the disk, and survive a loss of power. A pipe or a device, such as
    ``/dev/stdout``, is not replaced, but gets the content.
    """
    target = Path(path)
    if target.exists() and not (target.is_file() or target.is_dir()):
        _write_into(target, write)
        return
    make_folder(target.parent)
    temporary = target.with_name(f'.{target.stem}.{secrets.token_hex(8)}{target.suffix}')
    try:
        write(temporary)
        flush_file(temporary)
        os.replace(temporary, target)
    except BaseException as error:
        # The first error is the one to report, even if the folder has vanished.
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None:
            error.filename = os.fspath(target)
            if error.filename2 is not None:
                # None would be printed as a name.
                del error.filename2
        raise
    flush_folder(target.parent)


def _write_into(target: Path, write: Callable[[Path], object]) -> None:
    """Call ``write`` with the path of a temporary file, then copy that file to a pipe or device."""
    with tempfile.TemporaryDirectory() as folder:
        temporary = Path(folder) / target.name
        write(temporary)
        with temporary.open('rb') as content, target.open('wb') as out:
            shutil.copyfileobj(content, out)


def write_whole(path: str | os.PathLike[str], content: str | bytes | memoryview) -> None:
    """Write ``content`` to ``path`` atomically, text as UTF-8."""
    data = content.encode() if isinstance(content, str) else content
    write_with(path, lambda temporary: temporary.write_bytes(data))


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write ``value`` as indented JSON to ``path`` atomically."""
    write_whole(path, json.dumps(value, indent=2, allow_nan=False) + '\n')


def make_folder(path: Path) -> list[Path]:
    """Create a folder and its missing parents; return those that were created, innermost first."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in missing:
        flush_folder(folder.parent)
    return missing


def flush_file(path: Path) -> None:
    """Write the content of a file to the disk."""
    handle = os.open(path, os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def flush_folder(path: Path) -> None:
    """Write the names of a folder's files to the disk, where the system supports it."""
    # Windows cannot open folders, and some network file systems cannot flush them.
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def file_hash(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file."""
    digest = hashlib.sha256()
    with Path(path).open('rb') as file:
        while part := file.read(_PART):
            digest.update(part)
    return digest.hexdigest()


def zip_damage(path: str | os.PathLike[str]) -> str:
    """Return what is damaged in a zip file, such as one of ``torch.save``; '' if nothing is.

    Every checksum in the file is compared with the content. Files of other formats are not checked.
    """
    with Path(path).open('rb') as file:
        if file.read(4) != b'PK\x03\x04':
            return ''
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    # zipfile does not document which errors a damaged file raises.
    except Exception as error:
        return f'it is cut off or damaged ({type(error).__name__}: {error})'
    return f'its part {damaged!r} does not match its checksum' if damaged else ''
