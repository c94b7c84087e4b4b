"""A run: the stages of a config, one after the other, from the start or from where it stopped."""

from __future__ import annotations

import json
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
from easypruner.base.randomness import seed_everything
from easypruner.engine.checkpoint import save_weights
from easypruner.engine.compat import prepare, quiet
from easypruner.engine.runner import Tracer
from easypruner.errors import ConfigError, EasyPrunerError, Mistakes
from easypruner.pipeline.expansion import PlannedStage, expand
from easypruner.pipeline.fingerprint import differences, plain, stage_fingerprint
from easypruner.pipeline.plan import print_plan
from easypruner.pipeline.preflight import Preflight, check
from easypruner.plugins.handlers import plugin_handlers, plugin_transforms
from easypruner.report.text import duration, report_console
from easypruner.strategies import Stage
from easypruner.strategies.stages.forecast import unpruned_before
from easypruner.strategies.stages.state import PruningState, Run

RUN = 'run.json'
INITIAL = 'initial.pth'


@dataclass(frozen=True)
class Mode:
    """How to treat a work directory that is there already, and whether only to plan."""

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
        config: as it was read; its stages are expanded in place.
        name: of the config.
        manager: calls the hooks of the plugins, which are loaded.
        mode: how to treat the work directory.
        work_dir: of the run; ``work_dirs/NAME`` where None.
        seed: instead of the config's.
        launcher: what has started the processes of the run.
        verbose: show MMEngine's log on the console.

    Raises:
        EasyPrunerError: whatever the user can mend; what was done so far is kept.
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
    """Check a run's config, print the plan, and do the stages that are not done yet."""
    _check_work_dir(run, mode)
    # Else the first process could make the folder before the last has looked for it.
    distributed.barrier()
    init_default_scope(run.config.get('default_scope', 'mmpretrain'))
    seed_everything(run.seed)
    preflight = check(run.config, run.seed, run.trace, stages, mistakes)
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
        raise ConfigError(f'seed={seed!r} is not a whole number of at least 0 and below 2**32')
    return seed


def _check_work_dir(run: Run, mode: Mode) -> None:
    if mode.resume and mode.overwrite:
        raise ConfigError('--resume and --overwrite exclude each other')
    if mode.plan_only:
        return
    exists = run.work_dir.is_dir() and any(run.work_dir.iterdir())
    if run.work_dir.exists() and not run.work_dir.is_dir():
        raise ConfigError(f'the work directory {str(run.work_dir)!r} is a file')
    if exists and not (mode.resume or mode.overwrite):
        raise EasyPrunerError(
            f'the work directory {str(run.work_dir)!r} exists; go on in it with --resume, '
            'replace it with --overwrite, or choose another with --work-dir'
        )
    if exists and mode.overwrite and not (run.work_dir / RUN).is_file():
        raise EasyPrunerError(
            f'{str(run.work_dir)!r} is no work directory of EasyPruner (it has no {RUN}); '
            'it is not overwritten'
        )
    if mode.resume:
        _check_same_run(run)


def _check_same_run(run: Run) -> None:
    """Raise unless the work directory belongs to this very config."""
    file = run.work_dir / RUN
    if not file.is_file():
        raise EasyPrunerError(f'there is nothing to resume in {str(run.work_dir)!r}')
    try:
        before = json.loads(file.read_text(encoding='utf-8'))
        known, seed = before['config'], before['seed']
    except (ValueError, KeyError, TypeError) as error:
        raise EasyPrunerError(f'{str(file)!r} is damaged: {error}; start anew') from error
    changed = differences(known, plain(run.config.to_dict()))
    if seed != run.seed:
        changed.append('seed')
    if changed:
        raise EasyPrunerError(
            f'the config has changed since this run was begun ({", ".join(changed)}); '
            'resume with the config as it was, or start anew with --overwrite or --work-dir'
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
    """Write the weights that the first stage starts with; return the state that points there."""
    path = state.work_dir / INITIAL
    if distributed.is_main() and not path.is_file():
        save_weights(preflight.graph.model, path)
    distributed.barrier()
    return replace(state, checkpoint=path)


def _do_stages(state: PruningState, stages: Sequence[PlannedStage]) -> PruningState:
    teacher = unpruned_before(state.run.steps, state.config.get('load_from') is not None)
    mark = ''
    for index, planned in enumerate(stages):
        stage, mark = planned.stage, stage_fingerprint(planned.config, mark)
        state = state.at(index, stage.name)
        if index == teacher:
            state = replace(state, unpruned=state.checkpoint)
        done = state.resumed(mark)
        if done is None:
            _remove_later(state)
            done = _do_stage(state, stage, mark)
        elif distributed.is_main():
            state.run.console.print(f'{index} {stage.name}: done before', highlight=False)
        state = done
    return state


def _remove_later(state: PruningState) -> None:
    """Remove what later stages have left: they came of another run of the stage at hand."""
    if distributed.is_main():
        for folder in state.work_dir.glob('[0-9][0-9]*_*'):
            number = folder.name.partition('_')[0]
            if number.isdigit() and int(number) > state.index:
                shutil.rmtree(folder)
    distributed.barrier()


def _do_stage(state: PruningState, stage: Stage, mark: str) -> PruningState:
    console = state.run.console
    if distributed.is_main():
        state.stage.mkdir(parents=True, exist_ok=True)
        console.print(f'{state.index} {stage.name}: {stage.plan(state)}', markup=False)
    distributed.barrier()
    warned = len(state.warnings)
    seed_everything(state.run.seed, state.index)
    start = time.perf_counter()
    after = stage.run(state)
    seconds = time.perf_counter() - start
    key = stage.name if stage.name not in after.seconds else f'{state.index:02d}_{stage.name}'
    after = replace(after, seconds={**after.seconds, key: round(seconds, 3)})
    if distributed.is_main():
        after.save(mark)
        for warning in after.warnings[warned:]:
            console.print(f'  warning: {warning}', style='yellow', markup=False)
        rows = after.rows[len(state.rows) :]
        found = ''.join(f', {row.name} {row.accuracy:.2f} %' for row in rows)
        console.print(f'  done in {duration(seconds)}{found}', markup=False, highlight=False)
    distributed.barrier()
    resumed = state.resumed(mark)
    assert resumed is not None
    return resumed
