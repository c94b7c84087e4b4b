"""The file that declares a study: methods, seeds, budgets and swept keys."""

from __future__ import annotations

import difflib
import runpy
import types
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from easypruner.base.describe import shown
from easypruner.base.modules_beside import import_beside
from easypruner.errors import ConfigError, Mistakes, nearest
from easypruner.study.file_errors import location_of, problem_of, repeated_keys
from easypruner.study.methods import Method, check_files, read_methods
from easypruner.study.proposals import between
from easypruner.study.sweeps import choice, grid, plain_value
from easypruner.study.tuned_keys import tune

_EXECUTORS = ('submitit', 'ray')
_KEYS = (
    'configs', 'seeds', 'budgets', 'sweep', 'options', 'random', 'scratch', 'plugins', *_EXECUTORS
)  # fmt: skip
_MOST_SEEDS = 10_000
_FUNCTIONS = {'grid': grid, 'choice': choice, 'between': between, 'tune': tune}


@dataclass(frozen=True)
class Study:
    """A study.

    Attributes:
        name: the name of its file.
        methods: the methods, with the added baselines.
        seeds: the seeds of each method.
        budgets: the budgets of each method; None keeps that of the config.
        plugins: folders with plugins.
        settings: name of an executor -> its settings.
        names_budgets: whether names of runs have their budgets, because there are several.
    """

    name: str
    methods: tuple[Method, ...]
    seeds: tuple[int, ...]
    budgets: tuple[Mapping[str, Any] | None, ...]
    plugins: tuple[str, ...] = ()
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    names_budgets: bool = False


def read_study(path: Path) -> Study:
    """Read the file of a study.

    Raises:
        ConfigError: there is no such file, or it has mistakes; the message lists all.
    """
    content = _run(path)
    mistakes = Mistakes()
    for mistake in repeated_keys(path):
        mistakes.add(mistake)
    settings = {key: content.get(key, {}) for key in _EXECUTORS}
    for key, value in settings.items():
        if not isinstance(value, Mapping):
            mistakes.add(f'{key} is {shown(value)}; expected a dict of settings')
    for key in content:
        if key not in _KEYS:
            mistakes.add(
                f'unknown key {key!r}; {nearest(key, _KEYS)}; begin the name of a variable of your '
                f'own with an underscore: _{key}'
            )
    methods = read_methods(content, path.parent, mistakes)
    seeds: tuple[int, ...] = ()
    budgets: tuple[Mapping[str, Any] | None, ...] = ()
    with mistakes.collect():
        seeds = _seeds(content.get('seeds', [0]))
    with mistakes.collect():
        budgets = _budgets(content.get('budgets'))
    with mistakes.collect():
        methods = [*methods, *_baselines(content, methods)]
    folders: tuple[str, ...] = ()
    with mistakes.collect():
        folders = _folders(content, path.parent)
    if mistakes.found:
        # Otherwise the plan names them, with all that is wrong inside of the configs.
        check_files([method for method in methods if method.baseline is None], mistakes)
    mistakes.raise_all()
    several = len(budgets) > 1
    return Study(path.stem, tuple(methods), seeds, budgets, folders, settings, several)


def _run(path: Path) -> dict[str, Any]:
    """Return the names that a study file defines."""
    if not path.is_file():
        raise ConfigError(f'there is no study file {str(path)!r}; {_similar(path)}')
    import_beside(path)
    try:
        found = runpy.run_path(str(path), dict(_FUNCTIONS))
    except (Exception, SystemExit) as error:
        raise ConfigError(f'{location_of(error, path)}: {problem_of(error)}') from error
    if '_base_' in found:
        raise ConfigError(
            f'{str(path)!r} has _base_, which configs have, and studies have not; give the path of '
            'a study file, and name configs in its configs = dict(NAME=CONFIG, ...)'
        )
    return {
        key: value
        for key, value in found.items()
        if not key.startswith('_')
        and not isinstance(value, types.ModuleType | types.FunctionType | type)
    }


def _similar(path: Path) -> str:
    """Return a hint with the study file that a path may have been meant for."""
    beside = [file.name for file in path.parent.glob('*.py')]
    if path.is_dir():
        return 'it is a folder; give the path of a Python file in it'
    close = difflib.get_close_matches(f'{path.stem}.py', beside, n=1)
    if close:
        return f'did you mean {str(path.with_name(close[0]))!r}?'
    return 'give the path of a Python file'


def _seeds(given: Any) -> tuple[int, ...]:
    given = given.tolist() if hasattr(given, 'tolist') else given
    counted = type(given) is int
    seeds = range(given) if counted else given
    if (
        not isinstance(seeds, list | tuple | range)
        or not 0 < len(seeds) <= _MOST_SEEDS
        or not all(type(seed) is int and 0 <= seed < 2**32 for seed in seeds)
        or len(set(seeds)) < len(seeds)
    ):
        raise ConfigError(
            f'seeds is {shown(given)}; expected a list of different whole numbers, such as '
            f'[0, 1, 2], or how many, at most {_MOST_SEEDS}'
        )
    return tuple(seeds)


def _budgets(given: Any) -> tuple[Mapping[str, Any] | None, ...]:
    if given is None:
        return (None,)
    given = given.tolist() if hasattr(given, 'tolist') else given
    if not isinstance(given, list | tuple) or not given:
        raise ConfigError(
            f'budgets is {shown(given)}; expected a list of shares of MACs to keep, such as '
            "[0.5, 0.3], or of dicts, such as dict(type='Params', keep=0.5)"
        )
    mistakes, budgets = Mistakes(), []
    for number, entry in enumerate(given):
        with mistakes.collect():
            budgets.append(_budget(entry, f'budgets[{number}]'))
    mistakes.raise_all()
    if any(budget in budgets[:number] for number, budget in enumerate(budgets)):
        raise ConfigError(f'budgets is {shown(given)}; expected different ones')
    return tuple(budgets)


def _budget(entry: Any, where: str) -> Mapping[str, Any]:
    if isinstance(entry, Mapping) and isinstance(entry.get('type'), str):
        return dict(plain_value(entry, where))
    if isinstance(entry, int | float) and not isinstance(entry, bool) and 0 < entry < 1:
        return {'type': 'Macs', 'keep': entry}
    raise ConfigError(
        f'{where} is {shown(entry)}; expected the share of the MACs to keep, above 0 and below 1, '
        "or a dict, such as dict(type='Params', keep=0.5)"
    )


def _baselines(content: Mapping[str, Any], methods: list[Method]) -> list[Method]:
    """Return the baselines that a study adds unless it refuses them or has its own."""
    added = []
    for name in ('random', 'scratch'):
        wanted = content.get(name, True)
        if not isinstance(wanted, bool):
            raise ConfigError(f'{name} is {shown(wanted)}; expected True or False')
        if wanted and methods and name not in {method.name for method in methods}:
            first = methods[0]
            added.append(Method(name, first.config, first.recipe, first.options, baseline=name))
    return added


def _folders(content: Mapping[str, Any], parent: Path) -> tuple[str, ...]:
    given = content.get('plugins', ())
    folders = [given] if isinstance(given, str | Path) else given
    if not isinstance(folders, list | tuple) or not all(isinstance(f, str | Path) for f in folders):
        raise ConfigError(f'plugins is {shown(given)}; expected a list of folders')
    return tuple(str((parent / folder).resolve()) for folder in folders)
