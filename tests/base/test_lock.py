"""A folder has one owner at a time; the lock of a process that has ended is stale."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from easypruner.base.lock import LOCK, SILENT, FolderLock, Owner
from easypruner.errors import EasyPrunerError


@pytest.fixture
def ended() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, '-c', ''])
    process.wait()
    return process.pid


def write_lock(folder: Path, age: float = 0, **changes: object) -> Owner:
    """Write the lock of another process into a folder and return its owner."""
    folder.mkdir(exist_ok=True)
    owner = replace(Owner.this_process(), **changes)
    (folder / LOCK).write_text(json.dumps(asdict(owner)))
    now = (folder / LOCK).stat().st_mtime
    os.utime(folder / LOCK, (now - age, now - age))
    return owner


def take(folder: Path) -> None:
    lock = FolderLock(folder)
    lock.acquire()
    lock.check()
    lock.release()


def test_a_second_owner_is_refused_with_the_name_of_the_first(tmp_path: Path) -> None:
    first, second = FolderLock(tmp_path), FolderLock(tmp_path)
    first.acquire()
    owner = Owner.read((tmp_path / LOCK).read_bytes())
    assert owner is not None
    with pytest.raises(EasyPrunerError, match='in use by process') as caught:
        second.acquire()
    for part in (str(os.getpid()), owner.host, owner.since):
        assert part in str(caught.value)
    second.release()
    first.check()
    first.release()
    assert not list(tmp_path.iterdir())
    take(tmp_path)


def test_created_folders_go_with_the_lock_unless_they_have_content(tmp_path: Path) -> None:
    take(tmp_path / 'a' / 'b')
    assert not list(tmp_path.iterdir())
    lock = FolderLock(tmp_path / 'a' / 'b')
    lock.acquire()
    (tmp_path / 'a' / 'b' / 'file').write_text('')
    lock.release()
    assert [path.name for path in (tmp_path / 'a' / 'b').iterdir()] == ['file']


class TestStale:
    def test_a_process_has_ended(self, ended: int, tmp_path: Path) -> None:
        write_lock(tmp_path, pid=ended)
        take(tmp_path)

    def test_a_process_has_the_number_of_one_that_has_ended(self, tmp_path: Path) -> None:
        write_lock(tmp_path, started='1')
        take(tmp_path)

    @pytest.mark.parametrize('machine', ['elsewhere', ''])
    def test_another_machine_holds_it_until_it_is_silent(
        self, machine: str, ended: int, tmp_path: Path
    ) -> None:
        write_lock(tmp_path, machine=machine, pid=ended, age=SILENT - 60)
        with pytest.raises(EasyPrunerError, match=f'delete .*{LOCK}'):
            take(tmp_path)
        write_lock(tmp_path, machine=machine, pid=ended, age=SILENT + 60)
        take(tmp_path)

    @pytest.mark.parametrize('content', [b'', b'{', b'[]', b'{"pid": 3}', b'\xff'])
    def test_a_damaged_lock_is_held_until_it_is_silent(
        self, content: bytes, tmp_path: Path
    ) -> None:
        (tmp_path / LOCK).write_bytes(content)
        with pytest.raises(EasyPrunerError, match='in use by an unknown process'):
            take(tmp_path)
        os.utime(tmp_path / LOCK, (0, 0))
        take(tmp_path)

    def test_one_of_many_processes_takes_it_over(self, ended: int, tmp_path: Path) -> None:
        """Eight processes take the stale lock; each reports, then waits to be ended."""
        write_lock(tmp_path, pid=ended)
        code = (
            'import sys; from pathlib import Path; from easypruner.base.lock import FolderLock\n'
            'sys.stdin.readline()\n'
            f'try: FolderLock(Path({str(tmp_path)!r})).acquire(); print("owner", flush=True)\n'
            'except ValueError: print("refused", flush=True)\n'
            'sys.stdin.readline()'
        )
        processes = [
            subprocess.Popen(
                [sys.executable, '-c', code],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(8)
        ]
        for process in processes:
            assert process.stdin is not None
            process.stdin.write('go\n')
            process.stdin.flush()
        found = [process.stdout.readline().strip() for process in processes if process.stdout]
        for process in processes:
            process.communicate('end\n')
        assert sorted(found) == ['owner'] + ['refused'] * 7

    def test_one_that_was_just_replaced_is_not_taken_over(
        self, ended: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """While the second waits for the stale lock, the first takes it over."""
        write_lock(tmp_path, pid=ended)
        first, second = FolderLock(tmp_path), FolderLock(tmp_path)

        def wait(file: object) -> None:
            monkeypatch.undo()
            first.acquire()

        monkeypatch.setattr('easypruner.base.lock._wait_for', wait)
        with pytest.raises(EasyPrunerError, match='in use by process'):
            second.acquire()
        first.check()
        first.release()


class TestLost:
    def test_the_lock_was_deleted(self, tmp_path: Path) -> None:
        lock = FolderLock(tmp_path)
        lock.acquire()
        (tmp_path / LOCK).unlink()
        with pytest.raises(EasyPrunerError, match='has vanished'):
            lock.check()

    def test_another_process_took_it(self, tmp_path: Path) -> None:
        lock = FolderLock(tmp_path)
        lock.acquire()
        other = write_lock(tmp_path, pid=123456, machine='elsewhere')
        with pytest.raises(EasyPrunerError, match='is that of process 123456'):
            lock.check()
        lock.release()
        assert Owner.read((tmp_path / LOCK).read_bytes()) == other


def test_it_works_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, 'link', fail)
    lock = FolderLock(tmp_path)
    lock.acquire()
    with pytest.raises(EasyPrunerError, match='in use'):
        take(tmp_path)
    lock.release()
    assert not list(tmp_path.iterdir())
