"""A run: the stages of a config in order, from the start or from the first unfinished stage."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import pluggy
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope

from easypruner.base import distributed
from easypruner.base.files import write_json
from easypruner.base.json_fields import read_json
from easypruner.base.randomness import seed_everything
from easypruner.engine.checkpoint import save_weights
from easypruner.engine.compat import prepare, quiet
from easypruner.engine.failures import explained
from easypruner.engine.runner import Tracer
from easypruner.errors import ConfigError, EasyPrunerError, Mistakes
from easypruner.pipeline.fingerprint import differences, plain, stage_fingerprint
from easypruner.pipeline.preflight import PlannedStage, Preflight, check, expand, print_plan
from easypruner.plugins.handlers import plugin_handlers, plugin_transforms
from easypruner.report.text import format_duration, report_console
from easypruner.strategies import Stage
from easypruner.strategies.stages.forecast import unpruned_before
from easypruner.strategies.stages.state import PruningState, Run

RUN = 'run.json'
INITIAL = 'initial.pth'


@dataclass(frozen=True)
class Mode:
    """How a run treats an existing work directory, and whether it ends after the plan."""

    resume: bool = False
    overwrite: bool = False
    plan_only: bool = False


def start(
    config: Config,
    name: str,
    manager: pluggy.PluginManager,
    mode: Mode = Mode(),
    *,
    work_dir: str | Path | None = None,
    seed: int | None = None,
    launcher: Literal['none', 'pytorch'] = 'none',
    verbose: bool = False,
) -> PruningState:
    """Run the stages of a config.

    Args:
        config: the config; its stages are expanded in place.
        name: the name of the config.
        manager: the plugin manager, which calls the hooks of the loaded plugins.
        mode: how to treat the work directory.
        work_dir: the work directory of the run; None for ``work_dirs/NAME``.
        seed: a seed that replaces that of the config; None for that of the config.
        launcher: the launcher that started the processes of the run.
        verbose: whether MMEngine's log is printed to the console.

    Raises:
        EasyPrunerError: the user can fix the problem; finished stages are kept.
    """
    mistakes = Mistakes()
    stages = expand(config.get('stages') or [], mistakes)
    config.stages = [planned.config for planned in stages]
    prepare()
    if not verbose:
        quiet(MMLogger.get_current_instance())
    run = Run(
        config=config,
        name=name,
        work_dir=Path(work_dir or Path('work_dirs') / name).resolve(),
        seed=_chosen_seed(config, seed),
        manager=manager,
        console=report_console(),
        trace=Tracer(config, plugin_handlers()),
        handlers=plugin_handlers(),
        transforms=plugin_transforms(),
        launcher=launcher,
        verbose=verbose,
    )
    with distributed.launched(launcher):
        return _execute(run, stages, mistakes, mode)


def _execute(
    run: Run, stages: Sequence[PlannedStage], mistakes: Mistakes, mode: Mode
) -> PruningState:
    """Check the config of a run, print the plan and run the unfinished stages."""
    _check_work_dir(run, mode)
    # All processes check the work directory before one of them creates it.
    distributed.barrier()
    init_default_scope(run.config.get('default_scope', 'mmpretrain'))
    seed_everything(run.seed)
    preflight = check(run, stages, mistakes)
    state = PruningState(replace(run, steps=preflight.steps))
    if distributed.is_main():
        print_plan(run.console, state, preflight)
    if mode.plan_only:
        return state
    _open_work_dir(run, mode)
    return _do_stages(_with_initial_weights(state, preflight), stages)


def _chosen_seed(config: Config, given: int | None) -> int:
    seed = given
    if seed is None:
        seed = config.get('seed', (config.get('randomness') or {}).get('seed', 0))
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**32:
        raise ConfigError(f'seed={seed!r}; expected a whole number from 0 to 2**32 - 1')
    return seed


def _check_work_dir(run: Run, mode: Mode) -> None:
    if mode.resume and mode.overwrite:
        raise ConfigError('got --resume and --overwrite; choose one of them')
    if mode.plan_only:
        return
    exists = run.work_dir.is_dir() and any(run.work_dir.iterdir())
    if run.work_dir.exists() and not run.work_dir.is_dir():
        raise ConfigError(
            f'the work directory {str(run.work_dir)!r} is a file; choose another with --work-dir'
        )
    if exists and not (mode.resume or mode.overwrite):
        raise EasyPrunerError(
            f'the work directory {str(run.work_dir)!r} exists; continue its run with --resume, '
            'replace it with --overwrite, or choose another with --work-dir'
        )
    if exists and mode.overwrite and not (run.work_dir / RUN).is_file():
        raise EasyPrunerError(
            f'--overwrite does not replace {str(run.work_dir)!r}, because it is not a work '
            f'directory of EasyPruner (it has no {RUN}); choose another with --work-dir'
        )
    if mode.resume:
        _check_same_run(run)


def _check_same_run(run: Run) -> None:
    """Raise EasyPrunerError unless the run in the work directory has this config and seed."""
    file = run.work_dir / RUN
    if not file.is_file():
        raise EasyPrunerError(
            f'there is no run to resume in {str(run.work_dir)!r}; start it without --resume'
        )
    before = read_json(file)
    changed = differences(before['config'].value, plain(run.config.to_dict()))
    if before['seed'].value != run.seed:
        changed.append('seed')
    if changed:
        raise EasyPrunerError(
            f'the config has changed since this run started ({", ".join(changed)}); '
            'resume with the unchanged config, or start again with --overwrite or --work-dir'
        )


def _open_work_dir(run: Run, mode: Mode) -> None:
    if distributed.is_main():
        if mode.overwrite and run.work_dir.is_dir():
            shutil.rmtree(run.work_dir)
        run.work_dir.mkdir(parents=True, exist_ok=True)
        write_json(
            run.work_dir / RUN,
            {'name': run.name, 'seed': run.seed, 'config': plain(run.config.to_dict())},
        )
    distributed.barrier()


def _with_initial_weights(state: PruningState, preflight: Preflight) -> PruningState:
    """Write the weights with which the first stage starts; return a state with their path."""
    path = state.work_dir / INITIAL
    if distributed.is_main() and not path.is_file():
        save_weights(preflight.graph.model, path)
    distributed.barrier()
    return replace(state, checkpoint=path)


def _do_stages(state: PruningState, stages: Sequence[PlannedStage]) -> PruningState:
    teacher = unpruned_before(state.run.steps, state.config.get('load_from') is not None)
    fingerprint = ''
    for index, planned in enumerate(stages):
        stage, fingerprint = planned.stage, stage_fingerprint(planned.config, fingerprint)
        state = state.at(index, stage.name)
        if index == teacher:
            state = replace(state, unpruned=state.checkpoint)
        done = state.resumed(fingerprint)
        if done is None:
            _remove_later(state)
            done = _do_stage(state, stage, fingerprint)
        elif distributed.is_main():
            state.run.console.print(f'{index} {stage.name}: finished before', highlight=False)
        state = done
    return state


def _remove_later(state: PruningState) -> None:
    """Remove the folders of later stages, because they depend on the stage that runs now."""
    if distributed.is_main():
        for folder in state.work_dir.glob('[0-9][0-9]*_*'):
            number = folder.name.partition('_')[0]
            if number.isdigit() and int(number) > state.index:
                shutil.rmtree(folder)
    distributed.barrier()


def _do_stage(state: PruningState, stage: Stage, fingerprint: str) -> PruningState:
    console = state.run.console
    if distributed.is_main():
        state.stage.mkdir(parents=True, exist_ok=True)
        console.print(f'{state.index} {stage.name}: {stage.plan(state)}', markup=False)
    distributed.barrier()
    warned = len(state.warnings)
    seed_everything(state.run.seed, state.index)
    start = time.perf_counter()
    with explained(lambda: f'stage {stage.name!r}'):
        after = stage.run(state)
    seconds = time.perf_counter() - start
    key = stage.name if stage.name not in after.seconds else f'{state.index:02d}_{stage.name}'
    after = replace(after, seconds={**after.seconds, key: round(seconds, 3)})
    if distributed.is_main():
        after.save(fingerprint)
        for warning in after.warnings[warned:]:
            console.print(f'  warning: {warning}', style='yellow', markup=False)
        rows = after.rows[len(state.rows) :]
        found = ''.join(f', {row.name} {row.accuracy:.2f} %' for row in rows)
        console.print(f'  done in {format_duration(seconds)}{found}', markup=False, highlight=False)
    distributed.barrier()
    resumed = state.resumed(fingerprint)
    assert resumed is not None
    return resumed
