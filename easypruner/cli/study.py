"""The command ``easypruner study``: compares methods over seeds, budgets and swept keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from easypruner.cli.options import CommonArguments, expecting, flag, option, positional
from easypruner.errors import Mistakes

if TYPE_CHECKING:
    from rich.console import Console

    from easypruner.base.store import Store
    from easypruner.study.executors import Executor
    from easypruner.study.parts import Part
    from easypruner.study.plan import Plan
    from easypruner.study.study_file import Study


@expecting('a whole number of at least 1')
def parse_count(text: str) -> int:
    """Convert the text of an option to a whole number of at least 1."""
    count = int(text)
    if count < 1:
        raise ValueError
    return count


@expecting('a whole number of at least 0')
def parse_seed(text: str) -> int:
    """Convert the text of an option to a seed."""
    seed = int(text)
    if seed < 0:
        raise ValueError
    return seed


@dataclass(frozen=True, kw_only=True)
class StudyArguments(CommonArguments):
    """The arguments of ``easypruner study``."""

    study: str = positional('path of a study file', metavar='STUDY.py')
    out: str | None = option('folder of the study; default: studies/NAME', metavar='DIR')
    resume: bool = flag('continue the study in the folder: run what is not finished')
    overwrite: bool = flag('replace an existing study')
    plan: bool = flag('check the study and print the runs, without running them')
    jobs: int = option(
        'number of runs at the same time; default: 1', type=parse_count, metavar='N', default=1
    )
    executor: Literal['local', 'submitit', 'ray'] = option(
        'where runs are executed: in processes of this machine, as jobs of submitit (Slurm), or as '
        'tasks of Ray; default: local',
        choices=('local', 'submitit', 'ray'),
        default='local',
    )
    threads: int | None = option(
        'threads of each run; default: an equal share of the cores', type=parse_count, metavar='N'
    )
    only: Sequence[str] = option(
        'run only these methods now', nargs='+', action='extend', metavar='METHOD', default=[]
    )
    seeds: Sequence[int] = option(
        'run only these seeds now',
        nargs='+',
        action='extend',
        type=parse_seed,
        metavar='N',
        default=[],
    )
    budgets: Sequence[float] = option(
        'run only budgets that keep these shares now', nargs='+', action='extend', type=float,
        metavar='KEEP',
        default=[],
    )  # fmt: skip
    store: str | None = option(
        "folder of finished stages that runs share; default: in the user's cache", metavar='DIR'
    )


def study(arguments: StudyArguments) -> int:
    """Run a study.

    Raises:
        EasyPrunerError: the study has mistakes, or runs have failed.
    """
    # These modules import torch and MMEngine, and --help has to be fast.
    from easypruner.base.lock import FolderLock
    from easypruner.base.store import Store, default_store
    from easypruner.report.text import report_console
    from easypruner.study.parts import Part
    from easypruner.study.record import check_folder
    from easypruner.study.study import clear
    from easypruner.study.study_file import read_study

    declared, console = read_study(Path(arguments.study)), report_console()
    folder = Path(arguments.out or Path('studies') / declared.name).resolve()
    store = Store(Path(arguments.store) if arguments.store else default_store())
    part = Part(arguments.only, arguments.seeds, arguments.budgets)
    _check_command(arguments, declared, part, folder, store, console)
    if arguments.plan:
        _planned(arguments, declared, part, folder, console)
        return 0
    lock = FolderLock(folder, '--out', 'study folder')
    lock.acquire()
    try:
        # Another process may have begun in the meantime.
        check_folder(folder, arguments.resume, arguments.overwrite)
        plan = _planned(arguments, declared, part, folder, console)
        if arguments.overwrite:
            clear(folder)
        _execute(arguments, declared, part, plan, folder, store.folder.resolve(), console)
    finally:
        lock.release()
    return 0


def _check_command(
    arguments: StudyArguments,
    declared: Study,
    part: Part,
    folder: Path,
    store: Store,
    console: Console,
) -> None:
    """Raise ConfigError for all options that do not fit; a plan needs no folders."""
    from easypruner.base.disk import disk_problem
    from easypruner.study.executors import check_installed
    from easypruner.study.record import check_folder

    mistakes, folders = Mistakes(), Mistakes()
    with mistakes.collect():
        part.of(declared)
    with mistakes.collect():
        check_installed(arguments.executor)
    with folders.collect():
        check_folder(folder, arguments.resume, arguments.overwrite)
    if arguments.plan:
        for problem in folders.found:
            console.print(f'note: {problem}', markup=False, highlight=False)
    else:
        for problem in folders.found:
            mistakes.add(problem)
        try:
            store.check_writable()
        except OSError as error:
            problem = disk_problem(error) or str(error)
            mistakes.add(f'the store cannot be written: {problem}; see --store')
    mistakes.raise_all()


def _planned(
    arguments: StudyArguments, declared: Study, part: Part, folder: Path, console: Console
) -> Plan:
    """Check the configs of a part of a study and what its folder has, and print the plan."""
    from easypruner.study.check import check_study
    from easypruner.study.resumed import check_resumed

    now = part.of(declared)
    plan = check_study(now, console, data=arguments.executor == 'local')
    if arguments.resume:
        check_resumed(declared, folder, console)
    return plan


def _execute(
    arguments: StudyArguments,
    declared: Study,
    part: Part,
    plan: Plan,
    folder: Path,
    store: Path,
    console: Console,
) -> None:
    """Execute the trials and runs of a study, in a folder that this process owns."""
    from easypruner.study.plan import plan_study
    from easypruner.study.record import Record
    from easypruner.study.runs import runs_of
    from easypruner.study.study import run_study
    from easypruner.study.trials import tune_study
    from easypruner.study.unchanged import check_unchanged

    executor = _executor(arguments, declared, folder)
    # A study that is killed while it tunes can be resumed.
    Record(folder, declared.name, runs_of(declared), plan.differences).write()
    try:
        final, tuned = tune_study(declared, part, folder, executor, store, console)
        if tuned:
            check_unchanged(runs_of(part.of(final)), folder)
            # Values that were tuned differ on purpose.
            plan = replace(plan_study(part.of(final)), differences=plan.differences)
        run_study(final, plan, folder, executor, store, console, tuned)
    finally:
        executor.close()


def _executor(arguments: StudyArguments, declared: Study, folder: Path) -> Executor:
    from easypruner.study import executors

    threads = arguments.threads or executors.share_of_cores(arguments.jobs)
    if arguments.executor == 'submitit':
        from easypruner.study.submitit_jobs import SubmititExecutor

        settings = declared.settings['submitit']
        return SubmititExecutor(arguments.jobs, folder / 'submitit', threads, settings)
    if arguments.executor == 'ray':
        from easypruner.study.ray_tasks import RayExecutor

        return RayExecutor(arguments.jobs, threads, declared.settings['ray'])
    return executors.LocalExecutor(arguments.jobs, threads, executors.visible_gpus())
