"""A run: the stages of a config in order, from the start or from the first unfinished stage."""

from __future__ import annotations

import logging
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pluggy
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope

from easypruner.base import distributed, launchers
from easypruner.base.disk import disk_problem
from easypruner.base.files import make_folder
from easypruner.base.launchers import Launcher
from easypruner.base.lock import FolderLock
from easypruner.base.randomness import seed_everything
from easypruner.base.stopping import GRACE, Stop
from easypruner.base.store import Store
from easypruner.engine.compat import prepare, quiet
from easypruner.engine.config import DEFAULT_SCOPE
from easypruner.engine.failures import explained
from easypruner.engine.pretrained import starts_trained
from easypruner.engine.runner import Tracer
from easypruner.errors import ConfigError, EasyPrunerError, Interrupted, Mistakes
from easypruner.pipeline.config_check import target_in
from easypruner.pipeline.fingerprint import run_fingerprint, stage_fingerprint
from easypruner.pipeline.preflight import (
    PlannedStage,
    Preflight,
    check,
    expand,
    print_plan,
)
from easypruner.pipeline.stored_stages import StoredStages
from easypruner.pipeline.work_dir import (
    DEFAULT_MODE,
    RUN,
    Mode,
    check_path,
    check_work_dir,
    open_work_dir,
    owned,
    seed_of,
    with_initial_weights,
)
from easypruner.plugins.handlers import plugin_handlers, plugin_transforms
from easypruner.report.result import RunResult
from easypruner.report.run_report import print_run
from easypruner.report.text import format_duration, report_console
from easypruner.strategies import Stage
from easypruner.strategies.stages.forecast import unpruned_before
from easypruner.strategies.stages.state import PruningState, Run


def start(
    config: Config,
    name: str,
    manager: pluggy.PluginManager,
    mode: Mode = DEFAULT_MODE,
    *,
    work_dir: str | Path | None = None,
    seed: int | None = None,
    launcher: Launcher = 'none',
    verbose: bool = False,
    grace: float = GRACE,
    store: str | Path | None = None,
) -> PruningState:
    """Run the stages of a config.

    Args:
        config: the config; its stages are expanded in place.
        name: the name of the config.
        manager: the plugin manager, which calls the hooks of the loaded plugins.
        mode: how to treat the work directory.
        work_dir: the work directory of the run; None for
            ``work_dirs/NAME_seedSEED``.
        seed: a seed that replaces that of the config; None for that of the config.
        launcher: the launcher that started the processes of the run.
        verbose: whether MMEngine's log is printed to the console.
        grace: the seconds after SIGTERM in which the run may save where it stands.
        store: a folder of finished stages that runs share; None shares nothing.

    Raises:
        EasyPrunerError: the user can fix the problem; finished stages are kept.
        Interrupted: Ctrl-C or SIGTERM; finished stages and epochs are kept.
    """
    launchers.check(launcher)
    shared = None if store is None else Store(Path(store).resolve())
    mistakes = Mistakes()
    stages = expand(config.get('stages') or [], mistakes)
    config.stages = [planned.config for planned in stages]
    prepare()
    # A disk that is full must not print a traceback for every line of a log.
    logging.raiseExceptions = False
    if not verbose:
        quiet(MMLogger.get_current_instance())
    stop = Stop(grace)
    with stop.on_sigterm(), distributed.launched(launcher):
        chosen = _chosen_seed(config, seed, Path(work_dir) if work_dir and mode.resume else None)
        run = Run(
            config=config,
            name=name,
            work_dir=Path(work_dir or Path('work_dirs') / f'{name}_seed{chosen}').resolve(),
            seed=chosen,
            manager=manager,
            console=report_console(),
            trace=Tracer(config, plugin_handlers(), target_in(config, mistakes)),
            handlers=plugin_handlers(),
            transforms=plugin_transforms(),
            launcher=launcher,
            verbose=verbose,
            stop=stop,
        )
        with _ending_with_advice(run):
            check_path(run.work_dir, mode)
            if mode.plan_only:
                state = _prepared(run, stages, mistakes)[0]
                if distributed.is_main():
                    _note_work_dir(run, mode)
                return state
            with owned(run.work_dir) as lock:
                return _execute(run, stages, mistakes, mode, lock, shared)


@contextmanager
def _ending_with_advice(run: Run) -> Iterator[None]:
    """Say how to go on when a run is interrupted, or the disk fails."""
    try:
        yield
    except KeyboardInterrupt:
        raise _interrupted(run) from None
    except OSError as error:
        problem = disk_problem(error)
        if problem is None:
            raise
        kept = ', then continue with --resume: finished stages are kept'
        raise EasyPrunerError(problem + (kept if _is_begun(run) else '')) from error
    except Exception:
        # A scheduler that sends SIGTERM to all processes ends the workers of data loaders, too.
        if run.stop.requested:
            raise _interrupted(run) from None
        raise


def _interrupted(run: Run) -> Interrupted:
    if not _is_begun(run):
        return Interrupted()
    folder = () if _given_seed(run.config) is not None else ('--work-dir', str(run.work_dir))
    return Interrupted(*folder, '--resume')


def _is_begun(run: Run) -> bool:
    try:
        return (run.work_dir / RUN).is_file()
    except OSError:
        return False


def _execute(
    run: Run,
    stages: Sequence[PlannedStage],
    mistakes: Mistakes,
    mode: Mode,
    lock: FolderLock,
    store: Store | None,
) -> PruningState:
    """Check the config of a run, print the plan and run the unfinished stages."""
    distributed.on_main(lambda: check_work_dir(run, mode))
    state, preflight = _prepared(run, stages, mistakes)
    open_work_dir(run, mode)
    return _do_stages(with_initial_weights(state, preflight.graph.model), stages, lock, store)


def _prepared(
    run: Run, stages: Sequence[PlannedStage], mistakes: Mistakes
) -> tuple[PruningState, Preflight]:
    """Check the config of a run and print the plan; return the state at the start."""
    init_default_scope(run.config.get('default_scope', DEFAULT_SCOPE))
    seed_everything(run.seed)
    preflight = check(run, stages, mistakes)
    state = PruningState(replace(run, steps=preflight.steps))
    if distributed.is_main():
        print_plan(run.console, state, preflight)
        if _given_seed(run.config) is None:
            run.console.print(f'seed: {run.seed}', highlight=False)
    return state, preflight


def _note_work_dir(run: Run, mode: Mode) -> None:
    """Print why a run could not use its work directory; a plan itself needs none."""
    try:
        check_work_dir(run, mode)
    except EasyPrunerError as error:
        run.console.print(f'note: {error}', highlight=False, markup=False)


def _given_seed(config: Config) -> Any:
    """Return the seed of a config, 0 if it has none; None asks for a seed to be chosen."""
    randomness = config.get('randomness')
    in_mmengine = randomness.get('seed', 0) if isinstance(randomness, Mapping) else 0
    return config.get('seed', in_mmengine)


def _chosen_seed(config: Config, given: int | None, resumed: Path | None) -> int:
    """Return the seed of a run.

    Args:
        config: the config of the run.
        given: the seed of the command line, or None.
        resumed: the work directory of a run to resume, if it is known.
    """
    seed = _given_seed(config) if given is None else given
    if seed is None and resumed is not None:
        seed = seed_of(resumed)
    if seed is None:
        return distributed.from_main(secrets.randbelow(2**32))
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**32:
        raise ConfigError(f'seed={seed!r}; expected a whole number from 0 to 2**32 - 1')
    return seed


def _do_stages(
    state: PruningState, stages: Sequence[PlannedStage], lock: FolderLock, store: Store | None
) -> PruningState:
    shared = StoredStages(store, state.run, lock)
    teacher = unpruned_before(state.run.steps, starts_trained(state.config))
    fingerprint = run_fingerprint(state.run)
    to_repeat: list[tuple[PruningState, Stage, str]] = []
    finished = True
    for index, planned in enumerate(stages):
        stage, fingerprint = planned.stage, stage_fingerprint(planned.config, fingerprint)
        state = state.at(index, stage.name)
        if index == teacher:
            state = replace(state, unpruned=state.checkpoint)
        done = state.resumed(fingerprint)
        if done is None:
            finished = False
            _remove_later(state)
            compute = partial(_do_stage, state, stage, fingerprint, lock)
            done = shared.linked_or(state, stage, fingerprint, compute)
            to_repeat = []
        else:
            if distributed.is_main():
                state.run.console.print(f'{index} {stage.name}: finished before', highlight=False)
            if done.results and not distributed.from_main(done.has_results):
                to_repeat.append((state, stage, fingerprint))
        state = done
    for repeated in to_repeat:
        # Only the files that a user takes away are missing or damaged, so no other stage repeats.
        _do_stage(*repeated, lock)
    if not to_repeat and finished and state.results and distributed.is_main():
        print_run(RunResult.load(state.work_dir), state.run.manager, state.run.console)
    return state


def _remove_later(state: PruningState) -> None:
    """Remove the folders of later stages, because they depend on the stage that runs now."""
    if distributed.is_main():
        for folder in state.work_dir.glob('[0-9][0-9]*_*'):
            number = folder.name.partition('_')[0]
            if number.isdigit() and int(number) > state.index:
                shutil.rmtree(folder)
    distributed.barrier()


def _do_stage(
    state: PruningState, stage: Stage, fingerprint: str, lock: FolderLock
) -> PruningState:
    console = state.run.console
    state.run.stop.here()
    distributed.on_main(partial(_begin, state, lock))
    if distributed.is_main():
        console.print(f'{state.index} {stage.name}: {stage.plan(state)}', markup=False)
    warned = len(state.warnings)
    seed_everything(state.run.seed, state.index)
    start = time.perf_counter()
    with state.run.stop.saving_at_the_end():
        with explained(lambda: f'stage {stage.name!r}'):
            after = stage.run(state)
        seconds = time.perf_counter() - start
        key = stage.name if stage.name not in after.seconds else f'{state.index:02d}_{stage.name}'
        after = replace(after, seconds={**after.seconds, key: round(seconds, 3)})
        distributed.on_main(partial(_finish, after, fingerprint, lock))
    if distributed.is_main():
        for warning in after.warnings[warned:]:
            console.print(f'  warning: {warning}', style='yellow', markup=False)
        rows = after.rows[len(state.rows) :]
        found = ''.join(f', {row.name} {row.accuracy:.2f} %' for row in rows)
        console.print(f'  done in {format_duration(seconds)}{found}', markup=False, highlight=False)
    resumed = state.resumed(fingerprint)
    assert resumed is not None
    return resumed


def _begin(state: PruningState, lock: FolderLock) -> None:
    lock.check()
    state.check_files()
    make_folder(state.stage)


def _finish(state: PruningState, fingerprint: str, lock: FolderLock) -> None:
    lock.check()
    state.save(fingerprint)
