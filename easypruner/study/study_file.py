"""The file that declares a study: methods, seeds, budgets and swept keys."""

from __future__ import annotations

import runpy
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from easypruner.base.describe import shown
from easypruner.base.modules_beside import import_beside
from easypruner.errors import ConfigError, EasyPrunerError, Mistakes, nearest
from easypruner.study.proposals import between
from easypruner.study.sweeps import Sweep, choice, grid, read_sweeps
from easypruner.study.tuned_keys import Tune, tune

_EXECUTORS = ('submitit', 'ray')
_KEYS = (
    'configs', 'seeds', 'budgets', 'sweep', 'options', 'random', 'scratch', 'plugins', *_EXECUTORS
)  # fmt: skip
_METHOD_KEYS = ('config', 'recipe', 'options', 'sweep', 'tune')
_FUNCTIONS = {'grid': grid, 'choice': choice, 'between': between, 'tune': tune}


@dataclass(frozen=True)
class Method:
    """A method of a study.

    Attributes:
        name: the name.
        config: the path or name of its config.
        recipe: the name of a recipe that replaces the stages; None keeps them.
        options: key of the config -> value.
        sweep: key of the config -> the values that it takes.
        baseline: ``'random'`` or ``'scratch'`` for a method that the study adds: the stages of this
            baseline replace those of the config.
        tune: the keys whose values are chosen by trials; None if there are none.
        held_out: whether a part of the training data is held out, to validate on it.
        chosen: name of a budget -> key of the config -> the value that trials have chosen.
    """

    name: str
    config: str
    recipe: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    sweep: Mapping[str, Sweep] = field(default_factory=dict)
    baseline: str | None = None
    tune: Tune | None = None
    held_out: bool = False
    chosen: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


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
    methods: list[Method] = []
    seeds: tuple[int, ...] = ()
    budgets: tuple[Mapping[str, Any] | None, ...] = ()
    with mistakes.collect():
        methods = _methods(content)
    with mistakes.collect():
        seeds = _seeds(content.get('seeds', [0]))
    with mistakes.collect():
        budgets = _budgets(content.get('budgets'))
    with mistakes.collect():
        methods += _baselines(content, methods)
    folders: tuple[str, ...] = ()
    with mistakes.collect():
        folders = _folders(content, path.parent)
    mistakes.raise_all()
    several = len(budgets) > 1
    return Study(path.stem, tuple(methods), seeds, budgets, folders, settings, several)


def _run(path: Path) -> dict[str, Any]:
    """Return the names that a study file defines."""
    if not path.is_file():
        raise ConfigError(f'there is no study file {str(path)!r}; give the path of a Python file')
    import_beside(path)
    try:
        found = runpy.run_path(str(path), dict(_FUNCTIONS))
    except EasyPrunerError:
        raise
    except (Exception, SystemExit) as error:
        raise ConfigError(f'{str(path)!r}: {type(error).__name__}: {error}') from error
    return {
        key: value
        for key, value in found.items()
        if not key.startswith('_')
        and not isinstance(value, types.ModuleType | types.FunctionType | type)
    }


def _methods(content: Mapping[str, Any]) -> list[Method]:
    given = content.get('configs')
    if isinstance(given, list | tuple) and all(isinstance(entry, str) for entry in given):
        given = _by_stem(given)
    if not isinstance(given, Mapping) or not given:
        raise ConfigError(
            f'configs is {shown(given)}; expected a dict of name -> config, or a list of configs'
        )
    options = _options(content)
    common = {'options': options, 'sweep': read_sweeps(content.get('sweep', {}), 'sweep')}
    mistakes, methods = Mistakes(), []
    for name, entry in given.items():
        with mistakes.collect(f'configs[{name!r}]'):
            methods.append(_method(name, entry, common))
    mistakes.raise_all()
    _check_trials(methods)
    return methods


def _method(name: Any, entry: Any, common: Mapping[str, Any]) -> Method:
    if not isinstance(name, str) or not name.strip():
        raise ConfigError(f'the name is {name!r}; expected a string')
    entry = {'config': entry} if isinstance(entry, str) else entry
    if not isinstance(entry, Mapping) or not isinstance(entry.get('config'), str):
        raise ConfigError(
            f'got {shown(entry)}; expected the name of a config, or dict(config=NAME, recipe=..., '
            'options={...}, sweep={...})'
        )
    for key in entry:
        if key not in _METHOD_KEYS:
            raise ConfigError(f'unknown key {key!r}; {nearest(str(key), _METHOD_KEYS)}')
    recipe = entry.get('recipe')
    if recipe is not None and not isinstance(recipe, str):
        raise ConfigError(f'recipe is {shown(recipe)}; expected the name of a recipe')
    return Method(
        name,
        entry['config'],
        recipe,
        {**common['options'], **_options(entry)},
        {**common['sweep'], **read_sweeps(entry.get('sweep', {}), 'sweep')},
        tune=_tune(entry),
    )


def _options(content: Mapping[str, Any]) -> dict[str, Any]:
    options = content.get('options', {})
    if not isinstance(options, Mapping) or not all(isinstance(key, str) for key in options):
        raise ConfigError(
            f'options is {shown(options)}; expected a dict of key -> value, such as '
            "{'train_dataloader.batch_size': 64}"
        )
    return dict(options)


def _by_stem(configs: Sequence[str]) -> dict[str, str]:
    """Return name -> config, with the names of their files."""
    named = {Path(config).stem: config for config in configs}
    if len(named) < len(configs):
        raise ConfigError(
            f'configs is {shown(configs)}, of which two have the same name; give a dict of '
            'name -> config'
        )
    return named


def _tune(entry: Mapping[str, Any]) -> Tune | None:
    given = entry.get('tune')
    if given is not None and not isinstance(given, Tune):
        raise ConfigError(f'tune is {shown(given)}; expected tune(KEY, VALUES)')
    if given is not None and entry.get('sweep'):
        raise ConfigError('got sweep and tune; give one of them')
    return given


def _check_trials(methods: list[Method]) -> None:
    """Raise ConfigError unless all tuned methods have the same number of trials."""
    trials = {m.name: m.tune.trials for m in methods if m.tune is not None}
    if len(set(trials.values())) > 1:
        numbers = ', '.join(f'{name} {count}' for name, count in trials.items())
        raise ConfigError(
            f'the numbers of trials differ: {numbers}; give each tuned method as many values'
        )


def _seeds(given: Any) -> tuple[int, ...]:
    seeds = list(range(given)) if isinstance(given, int) and not isinstance(given, bool) else given
    if (
        not isinstance(seeds, list | tuple | range)
        or not seeds
        or not all(type(seed) is int and 0 <= seed < 2**32 for seed in seeds)
        or len(set(seeds)) < len(seeds)
    ):
        raise ConfigError(
            f'seeds is {shown(given)}; expected a list of different whole numbers, such as '
            '[0, 1, 2], or how many'
        )
    return tuple(seeds)


def _budgets(given: Any) -> tuple[Mapping[str, Any] | None, ...]:
    if given is None:
        return (None,)
    if not isinstance(given, list | tuple) or not given:
        raise ConfigError(
            f'budgets is {shown(given)}; expected a list of shares of MACs to keep, such as '
            "[0.5, 0.3], or of dicts, such as dict(type='Params', keep=0.5)"
        )
    budgets = [_budget(entry, f'budgets[{number}]') for number, entry in enumerate(given)]
    if any(budget in budgets[:number] for number, budget in enumerate(budgets)):
        raise ConfigError(f'budgets is {shown(given)}; expected different ones')
    return tuple(budgets)


def _budget(entry: Any, where: str) -> Mapping[str, Any]:
    if isinstance(entry, Mapping) and isinstance(entry.get('type'), str):
        return dict(entry)
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
