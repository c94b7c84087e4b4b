"""Whether the runs in the folder of a study are those that its file declares now."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mmengine.registry import init_default_scope

from easypruner.base.files import file_hash
from easypruner.engine.compat import prepare
from easypruner.engine.config import DEFAULT_SCOPE
from easypruner.errors import EasyPrunerError, Mistakes
from easypruner.pipeline.preflight import expand
from easypruner.pipeline.work_dir import RUN, changed_settings
from easypruner.plugins import load_plugins
from easypruner.report.text import format_numbers
from easypruner.study.runs import StudyRun
from easypruner.study.settings import settings_of

_MOST = 12


def check_unchanged(runs: Sequence[StudyRun], folder: Path) -> None:
    """Check that runs which have begun have the settings that the study gives them now.

    Otherwise the results of other settings would count as those of the study.

    Args:
        runs: the runs of a study.
        folder: the folder of the study.

    Raises:
        EasyPrunerError: some have other settings, which the message names; or a config cannot be
            read any more.
    """
    prepare()
    changed: dict[tuple[str, str], list[int]] = {}
    for same in _by_label(run for run in runs if (_work_dir(run, folder) / RUN).is_file()):
        problems = Mistakes()
        with problems.collect():
            config = _expanded(same[0])
            for run in same:
                for change in changed_settings(_work_dir(run, folder), config):
                    changed.setdefault((run.label, change), []).append(run.seed)
        for problem in problems.found:
            changed.setdefault((same[0].label, problem), []).extend(run.seed for run in same)
    if changed:
        lines = [
            f'{label}, seed {format_numbers(seeds)}: {change}'
            for (label, change), seeds in changed.items()
        ]
        more = [f'and {len(lines) - _MOST} more'] if len(lines) > _MOST else []
        listed = '\n  - '.join([*lines[:_MOST], *more])
        raise EasyPrunerError(
            f'the study has changed since these runs of {str(folder)!r} began:\n  - {listed}\n'
            'Undo the changes; or choose another folder with --out, where finished stages that are '
            'still the same come from the store; or remove the folders of these runs in '
            f'{str(folder / "runs")!r}, and they run again; or replace the study with --overwrite'
        )


def runs_of_other_code(runs: Iterable[StudyRun], folder: Path) -> list[str]:
    """Return the names of runs that have begun with other files of the plugins than now."""
    found = []
    for run in runs:
        if (_work_dir(run, folder) / RUN).is_file() and run.plugins:
            before = _code_of(folder / 'jobs' / f'{run.id}.json')
            if before is not None and before != plugin_code(run.plugins):
                found.append(f'{run.label}, seed {run.seed}')
    return found


def plugin_code(folders: Sequence[str]) -> str:
    """Return a hash of the files in folders of plugins."""
    digest = hashlib.sha256()
    for folder in folders:
        for file in sorted(Path(folder).glob('*.py')):
            digest.update(file.name.encode() + file_hash(file).encode())
    return digest.hexdigest()


def _work_dir(run: StudyRun, folder: Path) -> Path:
    return folder / 'runs' / run.id


def _by_label(runs: Iterable[StudyRun]) -> Iterator[list[StudyRun]]:
    """Yield the runs that differ only in their seeds."""
    found: dict[str, list[StudyRun]] = {}
    for run in runs:
        found.setdefault(run.label, []).append(run)
    yield from found.values()


def _expanded(run: StudyRun) -> Any:
    """Return the config of a run as the run itself begins with it."""
    load_plugins(run.plugins)
    config = settings_of(run)
    load_plugins(run.plugins, config.get('custom_imports') or ())
    init_default_scope(config.get('default_scope', DEFAULT_SCOPE))
    mistakes = Mistakes()
    config.stages = [entry.config for entry in expand(config.get('stages') or [], mistakes)]
    mistakes.raise_all()
    return config


def _code_of(job: Path) -> Any:
    """Return the hash of the plugins that a run began with; None if it is not known."""
    try:
        return json.loads(job.read_bytes()).get('code')
    except (OSError, ValueError, AttributeError):
        return None
