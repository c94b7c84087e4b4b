"""Finished stages that runs share: a stage that the store has is linked, not run."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from easypruner.base.disk import disk_problem
from easypruner.base.distributed import barrier, from_main, is_main, on_main
from easypruner.base.files import file_hash
from easypruner.base.json_fields import content_hash
from easypruner.base.lock import FolderLock, Owner
from easypruner.base.store import Store
from easypruner.base.versions import machine
from easypruner.engine.data_identity import data_identity, is_file
from easypruner.pipeline.fingerprint import known_keys, plain, run_identity
from easypruner.strategies import Stage
from easypruner.strategies.stages.forecast import margin_after, pushes_last
from easypruner.strategies.stages.state import STATE, PruningState, Run

_NO_RESULT = ('cli', 'integrations', 'report', 'study', 'testing')
"""The packages whose code changes no result of a stage."""


class StoredStages:
    """The finished stages that a run shares with other runs.

    The key of a stage is a hash of everything that its result depends on: the config of the run and
    of the stage, the content of the files before it, the data, the seed, the versions and the code.

    Args:
        store: the store; None shares nothing.
        run: the run.
        lock: the lock of its work directory.
    """

    def __init__(self, store: Store | None, run: Run, lock: FolderLock) -> None:
        self._store = store
        self._run = run
        self._lock = lock
        self._common: dict[str, Any] = {}

    def linked_or(
        self,
        state: PruningState,
        stage: Stage,
        fingerprint: str,
        compute: Callable[[], PruningState],
    ) -> PruningState:
        """Return the state after a stage, which is linked if the store has it, and run otherwise.

        Args:
            state: the state before the stage.
            stage: the stage.
            fingerprint: the fingerprint of the stage.
            compute: a function that runs the stage.
        """
        if self._store is None:
            return compute()
        if not self._common:
            self._common = _common(self._run)
        key = content_hash(plain(self._identity(state, fingerprint)))
        # One process of the run claims the stage, and the others wait for it.
        claim: AbstractContextManager[None] = nullcontext()
        if is_main():
            claim = self._store.claimed(key, self._waiting)
        with claim:
            barrier()
            done = self._linked(state, fingerprint, key)
            return done or self._computed(state, stage, key, compute)

    def _waiting(self, owner: Owner | None) -> None:
        who = 'another process' if owner is None else f'process {owner.pid} on {owner.host!r}'
        self._run.console.print(f'  waits for {who}, which runs the same stage', markup=False)

    def _linked(self, state: PruningState, fingerprint: str, key: str) -> PruningState | None:
        on_main(partial(self._link, state, key))
        done = state.resumed(fingerprint)
        if done is not None and is_main():
            text = f'{state.index} {state.stage.name[3:]}: linked from the store'
            self._run.console.print(text, markup=False, highlight=False)
        return done

    def _link(self, state: PruningState, key: str) -> None:
        assert self._store is not None
        self._lock.check()
        state.check_files()
        self._store.take(key, state.stage, last=STATE)

    def _computed(
        self, state: PruningState, stage: Stage, key: str, compute: Callable[[], PruningState]
    ) -> PruningState:
        done = compute()
        # A stage that writes files for the user does so in the work directory of each run.
        if is_main() and not done.results:
            self._put(done, stage, key)
        return done

    def _put(self, done: PruningState, stage: Stage, key: str) -> None:
        assert self._store is not None
        about = {
            'stage': stage.name,
            'index': done.index,
            'config': self._run.name,
            'seed': self._run.seed,
            'seconds': list(done.seconds.values())[-1],
            'work_dir': str(done.work_dir),
        }
        files = {str(file.relative_to(done.stage)): file for file in _kept(done.stage)}
        try:
            self._store.put(key, files, about)
        except OSError as error:
            # The run itself is fine.
            problem = disk_problem(error) or str(error)
            text = f'  the stage is not in the store: {problem}'
            self._run.console.print(text, style='yellow', markup=False)

    def _identity(self, state: PruningState, fingerprint: str) -> dict[str, Any]:
        run, index = self._run, state.index
        stage = run.config.stages[index]
        # What follows a stage decides what it warns of.
        pushes = bool(run.steps) and run.steps[index].push is not None
        after = [pushes_last(run.steps, index), repr(margin_after(run.steps, index))]
        return {
            **self._common,
            'stage': fingerprint,
            'files': _file_hashes(stage),
            'before': state.identity(),
            'after': after if pushes else [],
        }


def _common(run: Run) -> dict[str, Any]:
    """Return what the results of all stages of a run depend on."""
    identity = run_identity(run)
    config = known_keys(plain(run.config.to_dict()))
    return {
        'run': {key: value for key, value in identity.items() if key != 'config'},
        # A run may resume with another evaluator; what it then measures is another result.
        'val_evaluator': config.get('val_evaluator'),
        'num_workers': [
            (config.get(key) or {}).get('num_workers')
            for key in ('train_dataloader', 'val_dataloader')
        ],
        'files': _file_hashes({key: config[key] for key in config if key != 'stages'}),
        'data': from_main(data_identity(run.config) if is_main() else None),
        'device': machine()['device'],
        'code': from_main(_code_hash(tuple(sorted(_plugin_files(run)))) if is_main() else None),
    }


def _kept(folder: Path) -> Iterator[Path]:
    """Yield the files of a finished stage, without the checkpoints for resuming it."""
    for file in sorted(folder.rglob('*')):
        is_checkpoint = file.parent == folder and file.name.startswith(('epoch_', 'iter_', 'last_'))
        if file.is_file() and not file.is_symlink() and not is_checkpoint:
            yield file


def _file_hashes(value: Any) -> dict[str, str]:
    """Return path -> hash of every file that a config names."""
    if isinstance(value, str):
        return {value: file_hash(value)} if is_file(value) else {}
    if isinstance(value, Mapping):
        value = list(value.values())
    found: dict[str, str] = {}
    for item in value if isinstance(value, list | tuple) else ():
        found |= _file_hashes(item)
    return found


def _plugin_files(run: Run) -> Iterator[str]:
    """Yield the source files of the loaded plugins."""
    for plugin in run.manager.get_plugins():
        file = getattr(plugin, '__file__', None)
        if file is None:
            continue
        package = Path(file).name == '__init__.py'
        yield from map(str, Path(file).parent.rglob('*.py') if package else [file])


def _code_hash(plugins: tuple[str, ...]) -> str:
    """Return a hash of the code that computes results: EasyPruner's and that of the plugins."""
    root = Path(__file__).parents[1]
    own = sorted(
        str(file)
        for file in root.rglob('*.py')
        if file.relative_to(root).parts[0] not in _NO_RESULT
    )
    digest = hashlib.sha256()
    for file in (*own, *plugins):
        digest.update(Path(file).name.encode() + file_hash(file).encode())
    return digest.hexdigest()
