"""The store of folders: entries are whole or absent, verified, and shared by processes."""

from __future__ import annotations

import json
import multiprocessing
import os
from pathlib import Path

import pytest

from easypruner.base import claim, store
from easypruner.base.claim import claimed
from easypruner.base.lock import Owner
from easypruner.base.store import Store
from easypruner.errors import EasyPrunerError

KEY, OTHER = 'ab' * 32, 'cd' * 32


def folder_with(path: Path, **contents: str) -> dict[str, Path]:
    """Write files; return name -> path."""
    path.mkdir(parents=True)
    for name, content in contents.items():
        (path / name).write_text(content)
    return {name: path / name for name in contents}


@pytest.fixture
def filled(tmp_path: Path) -> Store:
    """A store with one entry."""
    kept = Store(tmp_path / 'store')
    kept.put(KEY, folder_with(tmp_path / 'made', state='done', weights='w' * 100), {'stage': 'x'})
    return kept


def test_what_was_put_is_taken(filled: Store, tmp_path: Path) -> None:
    target = tmp_path / 'run' / '00_x'
    folder_with(target, leftover='of an interrupted stage')
    assert filled.take(KEY, target, last='state')
    assert {file.name: file.read_text() for file in target.iterdir()} == {
        'state': 'done', 'weights': 'w' * 100
    }  # fmt: skip
    assert not filled.take(OTHER, tmp_path / 'absent', last='state')
    assert not (tmp_path / 'absent').exists()


@pytest.mark.parametrize('file', ['files/weights', 'entry.json'])
@pytest.mark.parametrize('damage', ['other', None])
def test_a_damaged_entry_counts_as_absent(
    filled: Store, tmp_path: Path, file: str, damage: str | None
) -> None:
    [place] = filled.folder.glob('*/ab*')
    (place / file).unlink()
    if damage is not None:
        (place / file).write_text(damage)
    assert not filled.take(KEY, tmp_path / 'target', last='state')
    assert not place.exists()
    filled.put(KEY, folder_with(tmp_path / 'again', state='done'), {})
    assert filled.take(KEY, tmp_path / 'target', last='state')


def test_a_failed_put_leaves_nothing(filled: Store, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        filled.put(OTHER, {'state': tmp_path / 'missing'}, {})
    assert not list(filled.folder.glob('cd/*')) and len(filled.entries()) == 1


def test_the_first_of_two_equal_entries_stays(filled: Store, tmp_path: Path) -> None:
    filled.put(KEY, folder_with(tmp_path / 'later', state='later'), {'stage': 'later'})
    assert [entry.about for entry in filled.entries()] == [{'stage': 'x'}]
    assert not list(filled.folder.glob('*/.*'))


def test_copies_replace_links_where_there_are_none(
    filled: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(95, 'no links here')

    monkeypatch.setattr(store.os, 'link', refuse)
    files = folder_with(tmp_path / 'more', **{'weights.pth': 'w'})
    filled.put(OTHER, files, {})
    assert filled.take(OTHER, tmp_path / 'target', last='weights.pth')
    assert files['weights.pth'].stat().st_nlink == 1


def test_a_log_that_grows_does_not_damage_its_entry(filled: Store, tmp_path: Path) -> None:
    files = folder_with(tmp_path / 'more', **{'log': 'begun', 'weights.pth': 'w'})
    filled.put(OTHER, files, {})
    files['log'].write_text('begun and ended')
    assert filled.take(OTHER, tmp_path / 'target', last='log')
    assert (tmp_path / 'target' / 'weights.pth').samefile(files['weights.pth'])


def test_prune_removes_what_was_not_used(filled: Store, tmp_path: Path) -> None:
    filled.put(OTHER, folder_with(tmp_path / 'more', state='done'), {'stage': 'y'})
    [old] = filled.folder.glob('ab/*/entry.json')
    os.utime(old, (0, 0))
    left = filled.folder / 'ab' / f'.{KEY}.{"0" * 16}'
    left.mkdir()
    os.utime(left, (0, 0))
    assert [entry.about for entry in filled.prune(days=30)] == [{'stage': 'x'}]
    assert [entry.about for entry in filled.entries()] == [{'stage': 'y'}]
    assert not left.exists()


def test_prune_removes_entries_that_cannot_be_read(filled: Store) -> None:
    [file] = filled.folder.glob('ab/*/entry.json')
    file.unlink()
    assert (filled.entries(), filled.damaged()) == ([], 1)
    assert filled.prune(days=30) == []
    assert filled.damaged() == 0 and not file.parent.exists()


def test_prune_leaves_what_is_not_of_a_store(tmp_path: Path) -> None:
    # Somebody may give the folder of projects by mistake.
    kept = ['project/.git/config', 'project/data/entry.json', 'ab/.venv/x', 'ab/abc/entry.json',
            f'cd/{KEY}/x', f'cd/.{KEY}.{"0" * 16}/x']  # fmt: skip
    for name in kept:
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
        os.utime((tmp_path / name).parent, (0, 0))
    assert Store(tmp_path).prune(days=0) == []
    assert all((tmp_path / name).is_file() for name in kept)


def test_a_store_that_cannot_be_written_stops_nobody(filled: Store, tmp_path: Path) -> None:
    for name in ('claims', 'cd'):
        (filled.folder / name).touch()
    with filled.claimed(KEY, lambda owner: pytest.fail('waits')):
        assert filled.take(KEY, tmp_path / 'target', last='state')
    with filled.claimed(OTHER, lambda owner: pytest.fail('waits')):
        assert not filled.take(OTHER, tmp_path / 'absent', last='state')
    with pytest.raises(OSError):
        filled.put(OTHER, folder_with(tmp_path / 'more', state='done'), {})


def test_a_file_is_no_store(tmp_path: Path) -> None:
    (tmp_path / 'file').touch()
    with pytest.raises(EasyPrunerError, match='is a file; expected a folder'):
        Store(tmp_path / 'file')


def _write_many(folder: Path, number: int) -> None:
    for repeat in range(20):
        files = folder_with(folder / f'{number}_{repeat}', state='done', weights='w' * 1000)
        Store(folder / 'store').put(KEY, files, {})


def test_two_processes_may_write_the_same_entry(tmp_path: Path) -> None:
    context = multiprocessing.get_context('fork')
    writers = [context.Process(target=_write_many, args=(tmp_path, n)) for n in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert Store(tmp_path / 'store').take(KEY, tmp_path / 'target', last='state')
    assert not list((tmp_path / 'store').glob('*/.*'))


def test_a_claim_of_a_dead_process_does_not_count(tmp_path: Path) -> None:
    dead = Owner.this_process()
    content = {**vars(dead), 'started': 'long ago'}
    (tmp_path / 'claim').write_text(json.dumps(content))
    with claimed(tmp_path / 'claim', lambda owner: pytest.fail('waits')):
        assert Owner.read((tmp_path / 'claim').read_bytes()) not in (None, Owner(**content))
    assert not (tmp_path / 'claim').exists()


def test_a_second_process_waits_until_the_work_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claim, '_PAUSE', 0.0)
    waits: list[int | None] = []
    answers = iter([True, True, False])
    with (
        claimed(tmp_path / 'claim', lambda owner: pytest.fail('waits')),
        claimed(
            tmp_path / 'claim',
            lambda owner: waits.append(owner and owner.pid),
            lambda: next(answers),
        ),
    ):
        assert waits == [os.getpid()]
    assert not (tmp_path / 'claim').exists()
