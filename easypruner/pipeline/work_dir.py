"""The work directory of a run: who owns it, and whether its run may go on."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmengine.config import Config
from torch import nn

from easypruner.base.describe import shown
from easypruner.base.distributed import barrier, is_main, on_main
from easypruner.base.files import file_hash, write_json
from easypruner.base.json_fields import Field, check_hash, read_json, with_hash
from easypruner.base.lock import LOCK, FolderLock
from easypruner.base.versions import machine
from easypruner.engine.checkpoint import save_weights
from easypruner.errors import ConfigError, EasyPrunerError
from easypruner.pipeline.fingerprint import (
    changes,
    differences,
    essential,
    known_keys,
    plain,
    run_identity,
)
from easypruner.strategies.stages.state import PruningState, Run

RUN = 'run.json'
INITIAL = 'initial.pth'
_INITIAL_HASH = 'initial'
_MACHINE = 'machine'


@dataclass(frozen=True)
class Mode:
    """How a run treats an existing work directory, and whether it ends after the plan."""

    resume: bool = False
    overwrite: bool = False
    plan_only: bool = False


DEFAULT_MODE = Mode()


@contextmanager
def owned(folder: Path) -> Iterator[FolderLock]:
    """Own a work directory in the block.

    Raises:
        EasyPrunerError: another run owns it; or it was lost in the block.
    """
    lock = FolderLock(folder)
    try:
        on_main(lock.acquire)
        yield lock
    except KeyboardInterrupt:
        # A lost lock interrupts the run.
        lock.check_if_lost()
        raise
    finally:
        lock.release()


def check_work_dir(run: Run, mode: Mode) -> None:
    """Raise EasyPrunerError unless a run may use its work directory in this mode.

    With --resume, changes of the config that do not matter are printed.
    """
    if mode.resume:
        _check_same_run(run)
        return
    if mode.overwrite and _is_used(run.work_dir) and not (run.work_dir / RUN).is_file():
        raise EasyPrunerError(
            f'--overwrite does not replace {str(run.work_dir)!r}, because it is not a work '
            f'directory of EasyPruner (it has no {RUN}); choose another with --work-dir'
        )
    if _is_used(run.work_dir) and not mode.overwrite:
        raise EasyPrunerError(
            f'the work directory {str(run.work_dir)!r} exists; continue its run with --resume, '
            'replace it with --overwrite, or choose another with --work-dir'
        )


def check_path(folder: Path, mode: Mode) -> None:
    """Raise EasyPrunerError if the mode is contradictory, or the path cannot be a folder."""
    if mode.resume and mode.overwrite:
        raise ConfigError('got --resume and --overwrite; choose one of them')
    if folder.exists() and not folder.is_dir():
        raise ConfigError(
            f'the work directory {str(folder)!r} is a file; choose another with --work-dir'
        )
    if mode.resume and not (folder / RUN).is_file():
        raise EasyPrunerError(
            f'there is no run to resume in {str(folder)!r}; start it without --resume'
        )


def seed_of(folder: Path) -> int | None:
    """Return the seed of the run in a work directory; None if there is no run."""
    file = folder / RUN
    return _read_run(file)['seed'].integer(0) if file.is_file() else None


def changed_settings(folder: Path, config: Config) -> list[str]:
    """Return in which settings that change results a config is not that of a run.

    Args:
        folder: the work directory of the run.
        config: the config, with its stages expanded.

    Raises:
        EasyPrunerError: the run.json of the folder is damaged.
    """
    return _changed(_read_run(folder / RUN)['config'].value, essential(plain(config.to_dict())))


def _changed(before: Any, now: Any) -> list[str]:
    """Return the essential settings that differ between two plain configs, with their values."""
    found = changes(essential(before), now)
    return [f'{path} (was {shown(then)}, is {shown(value)})' for path, then, value in found]


def open_work_dir(run: Run, mode: Mode) -> None:
    """Let the main process prepare a work directory that the run owns."""
    if is_main() and not mode.resume:
        if mode.overwrite:
            _clear(run.work_dir)
        _write_run(run, {})
    barrier()


def with_initial_weights(state: PruningState, model: nn.Module) -> PruningState:
    """Return the state with the weights that the first stage starts from, which are written.

    Raises:
        EasyPrunerError: they are damaged, and cannot be made again.
    """
    path = state.work_dir / INITIAL
    on_main(lambda: _ensure_initial(state.run, path, model))
    known = _read_run(state.work_dir / RUN)[_INITIAL_HASH].text()
    return replace(state, checkpoint=path, files={INITIAL: known})


def _ensure_initial(run: Run, path: Path, model: nn.Module) -> None:
    recorded = _read_run(run.work_dir / RUN).get(_INITIAL_HASH)
    if recorded is not None and path.is_file() and file_hash(path) == recorded.text():
        return
    save_weights(model, path)
    if recorded is None:
        _write_run(run, {_INITIAL_HASH: file_hash(path)})
    elif file_hash(path) != recorded.text():
        raise EasyPrunerError(
            f'the weights that this run started from, {str(path)!r}, were missing or damaged, and '
            'the config makes other ones now, for example because the file of load_from has '
            'changed; start again with --overwrite or --work-dir'
        )


def _write_run(run: Run, more: Mapping[str, Any]) -> None:
    identity = {**run_identity(run), 'config': plain(run.config.to_dict())}
    content = {'name': run.name, **identity, _MACHINE: machine(), **more}
    write_json(run.work_dir / RUN, with_hash(content))


def _read_run(file: Path) -> Field:
    content = read_json(file)
    check_hash(content)
    return content


def _is_used(folder: Path) -> bool:
    return folder.is_dir() and any(path.name != LOCK for path in folder.iterdir())


def _clear(folder: Path) -> None:
    # The run's own file goes last: without it, --overwrite would refuse the rest.
    for path in sorted(folder.iterdir(), key=lambda path: path.name == RUN):
        if path.name == LOCK:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _check_same_run(run: Run) -> None:
    """Raise EasyPrunerError unless the run in the work directory is this run."""
    before = _read_run(run.work_dir / RUN)
    old = before['config'].value
    identity = run_identity(run)
    changed = _changed(old, identity['config'])
    for key in ('seed', 'processes', 'versions'):
        then = before[key].value
        changed += [
            f'{path} (was {_at(then, path)}, is {_at(identity[key], path)})'
            for path in differences(then, identity[key], key)
        ]
    if changed:
        raise EasyPrunerError(
            f'the config has changed since this run started ({", ".join(changed)}), which changes '
            'its results; resume with what it was, or start again with --overwrite or --work-dir'
        )
    if is_main():
        _print_changes(run, old, before)


def _print_changes(run: Run, old: Any, before: Field) -> None:
    """Print what is not as it was when a run started, though the run may go on."""
    free = differences(known_keys(old), known_keys(plain(run.config.to_dict())))
    if free:
        text = f'changed since the start, which may differ: {", ".join(free)}'
        if any('num_workers' in path for path in free):
            text += ' (with other workers, random transforms draw other numbers)'
        if any(path.startswith('val_evaluator') for path in free):
            text += ' (finished rows keep what the old evaluator measured)'
        run.console.print(text, highlight=False, markup=False)
    if text := _rounding_note(before.get(_MACHINE)):
        run.console.print(text, style='yellow', highlight=False, markup=False)


def _rounding_note(before: Field | None) -> str:
    """Return a note if a run goes on where sums are rounded differently, or ''."""
    now = machine()
    then = now if before is None else before.value
    changed = [
        f'{path} was {_at(then, f".{path}")}, is {_at(now, f".{path}")}'
        for path in differences(then, now)
    ]
    if not changed:
        return ''
    return (
        f'changed since the start: {", ".join(changed)}; sums are rounded differently from here '
        'on, so the result differs from that of an uninterrupted run'
    )


def _at(value: Any, path: str) -> Any:
    """Return the value at a path such as ``versions.torch``, relative to its first part."""
    for key in path.split('.')[1:]:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value
