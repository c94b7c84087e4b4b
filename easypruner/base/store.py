"""A store of folders under keys: entries appear whole, are verified, and serve many processes."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from easypruner.base.cache import cache_folder
from easypruner.base.claim import claimed
from easypruner.base.files import file_hash, flush_file, flush_folder, make_folder, write_json
from easypruner.base.json_fields import Field, check_hash, read_json, with_hash
from easypruner.base.lock import Owner
from easypruner.errors import EasyPrunerError

_ENTRY = 'entry.json'
_FILES = 'files'
_CLAIMS = 'claims'
_OUTGOING = '.'
# Other names are not of a store: the folder may be given by mistake, and hold anything.
_KEY = re.compile('[0-9a-f]{64}')
_LEFTOVER = re.compile(r'\.([0-9a-f]{64})\.[0-9a-f]{16,32}')
_WHOLE = ('.pth', '.safetensors')
"""The suffixes of large files, which are written whole. Others, such as logs, may still grow."""
_DAY = 24 * 3600
_UNFINISHED = _DAY
"""The age in seconds from which a temporary folder counts as left by a process that was killed."""


def default_store() -> Path:
    """Return the folder of the store in the user's cache."""
    return cache_folder() / 'stages'


@dataclass(frozen=True)
class Entry:
    """An entry of a store.

    Attributes:
        key: the key.
        about: what the entry is, for people.
        bytes: the size of its files.
        used: when it was last stored or taken, in seconds since the epoch.
    """

    key: str
    about: Mapping[str, Any]
    bytes: int
    used: float


class Store:
    """A store of folders.

    A folder is written beside the others and renamed, so an entry is there whole or not at all. Its
    weights are hard links where the file system allows it: they take no further space.

    Args:
        folder: the folder of the store; it is created when something is stored.
    """

    def __init__(self, folder: Path) -> None:
        if folder.exists() and not folder.is_dir():
            raise EasyPrunerError(
                f'the store {str(folder)!r} is a file; expected a folder, which is created if '
                'it is missing'
            )
        self.folder = folder

    def take(self, key: str, target: Path, last: str) -> bool:
        """Replace a folder by links to the files of an entry.

        Args:
            key: the key of the entry.
            target: the folder.
            last: the name of the file that is linked last, and marks the folder as complete.

        Returns:
            whether there is such an entry, undamaged. A damaged one is removed.
        """
        place = self._place(key)
        try:
            hashes = _read(place / _ENTRY)['files']
            files = {name: value.text() for name, value in hashes.entries()}
            if any(file_hash(place / _FILES / name) != known for name, known in files.items()):
                raise EasyPrunerError('damaged')
            shutil.rmtree(target, ignore_errors=True)
            for name in sorted(files, key=lambda name: name == last):
                _link(place / _FILES / name, target / name)
            flush_folder(target)
            # A store may be read-only.
            with contextlib.suppress(OSError):
                os.utime(place / _ENTRY)
        except (EasyPrunerError, FileNotFoundError, NotADirectoryError, IsADirectoryError):
            # Another process may have removed it just now.
            self._discard(place)
            return False
        return True

    def has(self, key: str) -> bool:
        """Return whether there is an entry, perhaps a damaged one."""
        return (self._place(key) / _ENTRY).is_file()

    def put(self, key: str, names: Mapping[str, Path], about: Mapping[str, Any]) -> None:
        """Store files. If there is an entry of this key already, it stays.

        Args:
            key: the key.
            names: path in the entry -> file.
            about: what the entry is, for :meth:`entries`; JSON can represent it.
        """
        place = self._place(key)
        make_folder(place.parent)
        temporary = place.with_name(f'{_OUTGOING}{key}.{secrets.token_hex(8)}')
        try:
            for name, file in names.items():
                _link(file, temporary / _FILES / name)
            stored = {name: temporary / _FILES / name for name in names}
            content = {
                'about': dict(about),
                'files': {name: file_hash(file) for name, file in stored.items()},
                'bytes': sum(file.stat().st_size for file in stored.values()),
            }
            write_json(temporary / _ENTRY, with_hash(content))
            # An entry that exists is not replaced, because its folder is not empty.
            with contextlib.suppress(OSError):
                temporary.rename(place)
                flush_folder(place.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    @contextlib.contextmanager
    def claimed(self, key: str, waiting: Callable[[Owner | None], object]) -> Iterator[None]:
        """Let one process work on an entry in the block, while others wait for it.

        Args:
            key: the key of the entry.
            waiting: called once with the process that is waited for.
        """
        with claimed(self.folder / _CLAIMS / key, waiting, lambda: not self.has(key)):
            yield

    def check_writable(self) -> None:
        """Raise OSError if the store cannot be written."""
        make_folder(self.folder)
        probe = self.folder / f'{_OUTGOING}{secrets.token_hex(8)}'
        probe.mkdir()
        probe.rmdir()

    def entries(self) -> list[Entry]:
        """Return all readable entries, the last used one first."""
        found = [_entry(place / _ENTRY) for place in self._places()]
        entries = [entry for entry in found if entry is not None]
        return sorted(entries, key=lambda entry: (-entry.used, entry.key))

    def damaged(self) -> int:
        """Return the number of entries that cannot be read."""
        return sum(_entry(place / _ENTRY) is None for place in self._places())

    def prune(self, days: float) -> list[Entry]:
        """Remove entries that were not used for a time, unreadable ones, and leftovers.

        Folders that have taken an entry keep their files.

        Returns:
            the readable entries that were removed.
        """
        now = time.time()
        removed = [entry for entry in self.entries() if now - entry.used >= days * _DAY]
        for entry in removed:
            self._discard(self._place(entry.key))
        for place in self._places():
            if _entry(place / _ENTRY) is None:
                self._discard(place)
        for left in self.folder.glob(f'*/{_OUTGOING}*'):
            named = _LEFTOVER.fullmatch(left.name)
            if named is None or left.parent.name not in (named[1][:2], _CLAIMS):
                continue
            with contextlib.suppress(OSError):
                if now - left.stat().st_mtime >= _UNFINISHED:
                    _remove(left)
        return removed

    def _places(self) -> list[Path]:
        """Return the folders of entries, readable or not."""
        return [
            place
            for place in self.folder.glob('[0-9a-f][0-9a-f]/[!.]*')
            if _KEY.fullmatch(place.name) and place.parent.name == place.name[:2]
        ]

    def _place(self, key: str) -> Path:
        return self.folder / key[:2] / key

    def _discard(self, place: Path) -> None:
        """Remove an entry. It vanishes at once, so that nobody takes a part of it."""
        leaving = place.with_name(f'{_OUTGOING}{place.name}.{secrets.token_hex(8)}')
        with contextlib.suppress(OSError):
            place.rename(leaving)
        shutil.rmtree(leaving, ignore_errors=True)


def _link(source: Path, target: Path) -> None:
    """Link a file of weights; copy other files, and where links are not possible."""
    make_folder(target.parent)
    if source.suffix in _WHOLE:
        with contextlib.suppress(OSError):
            os.link(source, target)
            return
    shutil.copyfile(source, target)
    flush_file(target)


def _read(file: Path) -> Field:
    content = read_json(file)
    check_hash(content)
    return content


def _entry(file: Path) -> Entry | None:
    try:
        content = _read(file)
        about = content['about'].value
        return Entry(file.parent.name, about, content['bytes'].integer(0), file.stat().st_mtime)
    except (EasyPrunerError, OSError):
        return None


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink()
