"""The methods of a study file: their configs, options, sweeps, and what is tuned."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from easypruner.base.describe import shown
from easypruner.engine.foreign_configs import is_foreign
from easypruner.errors import ConfigError, Mistakes, nearest
from easypruner.pipeline.configs import find_config
from easypruner.pipeline.recipes import find_recipe
from easypruner.study.sweeps import Sweep, plain_value, read_sweeps
from easypruner.study.tuned_keys import Tune

_METHOD_KEYS = ('config', 'recipe', 'options', 'sweep', 'tune')
_ALL_METHODS = ('seeds', 'budgets', 'plugins')
_OF_THE_STUDY = {
    'seed': 'seeds of the study are its seeds=[...]',
    'randomness.seed': 'seeds of the study are its seeds=[...]',
    'work_dir': 'each run has its folder in that of the study',
}
"""Key of a config -> why a study sets it."""


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


def read_methods(content: Mapping[str, Any], folder: Path, mistakes: Mistakes) -> list[Method]:
    """Return the methods that a study file declares, without those that have mistakes.

    Args:
        content: the names that the file defines.
        folder: the folder of the file.
        mistakes: gets the mistakes.
    """
    named: Mapping[Any, Any] = {}
    common: dict[str, Any] = {'options': {}, 'sweep': {}}
    methods: list[Method] = []
    with mistakes.collect():
        named = _named(content.get('configs'))
    with mistakes.collect():
        common['options'] = _options(content)
    with mistakes.collect():
        common['sweep'] = _sweep(content)
    for name, entry in named.items():
        with mistakes.collect(f'configs[{name!r}]'):
            methods.append(_method(name, entry, common, folder))
    with mistakes.collect():
        _check_trials(methods)
    return methods


def check_files(methods: Sequence[Method], mistakes: Mistakes) -> None:
    """Add a mistake for each config and recipe that there is not."""
    for method in methods:
        with mistakes.collect(f'configs[{method.name!r}]'):
            find_config(method.config)
        with mistakes.collect(f'configs[{method.name!r}]'):
            if method.recipe is not None:
                find_recipe(method.recipe)


def _named(given: Any) -> Mapping[Any, Any]:
    """Return name -> entry of the configs of a study file."""
    if isinstance(given, list | tuple) and all(isinstance(e, str | os.PathLike) for e in given):
        given = _by_stem(given)
    if not isinstance(given, Mapping) or not given:
        raise ConfigError(
            f'configs is {shown(given)}; expected a dict of name -> config, or a list of configs'
        )
    return given


def _method(name: Any, entry: Any, common: Mapping[str, Any], folder: Path) -> Method:
    if not isinstance(name, str) or not name.strip() or not name.isprintable():
        raise ConfigError(f'the name is {name!r}; expected a string of printable characters')
    entry = {'config': entry} if isinstance(entry, str | os.PathLike) else entry
    if isinstance(entry, Mapping):
        _check_entry(entry)
    if not isinstance(entry, Mapping) or not isinstance(entry.get('config'), str | os.PathLike):
        raise ConfigError(
            f'got {shown(entry)}; expected the name of a config, or dict(config=NAME, recipe=..., '
            'options={...}, sweep={...})'
        )
    recipe = entry.get('recipe')
    if recipe is not None and not isinstance(recipe, str | os.PathLike):
        raise ConfigError(f'recipe is {shown(recipe)}; expected the name of a recipe')
    sweep = {**common['sweep'], **_sweep(entry)}
    return Method(
        name,
        _located(entry['config'], folder),
        None if recipe is None else _located(recipe, folder),
        {**common['options'], **_options(entry)},
        sweep,
        tune=_tune(entry, sweep),
    )


def _check_entry(entry: Mapping[Any, Any]) -> None:
    """Raise ConfigError for keys that no method has."""
    mistakes = Mistakes()
    for key in entry:
        if key in _ALL_METHODS:
            mistakes.add(f'unknown key {key!r}; it is for all methods: give it outside of configs')
        elif key not in _METHOD_KEYS:
            mistakes.add(f'unknown key {key!r}; {nearest(str(key), _METHOD_KEYS)}')
    mistakes.raise_all()


def _located(name: str | os.PathLike[str], folder: Path) -> str:
    """Return the path of a file, which is relative to that of the study; other names stay."""
    text = os.fspath(name)
    beside = folder / text
    if is_foreign(text):
        return text
    for path in (beside, Path(text)):
        if path.is_file():
            return str(path.resolve())
    return str(beside) if len(Path(text).parts) > 1 else text


def _sweep(content: Mapping[str, Any]) -> dict[str, Sweep]:
    sweeps = read_sweeps(content.get('sweep', {}), 'sweep')
    _check_keys(sweeps, 'sweep')
    return sweeps


def _check_keys(keys: Iterable[str], where: str) -> None:
    """Raise ConfigError for a key that the study sets."""
    for key in keys:
        if key in _OF_THE_STUDY:
            raise ConfigError(f'{where} has the key {key!r}; leave it out: {_OF_THE_STUDY[key]}')


def _options(content: Mapping[str, Any]) -> dict[str, Any]:
    options = content.get('options', {})
    if not isinstance(options, Mapping) or not all(isinstance(key, str) for key in options):
        raise ConfigError(
            f'options is {shown(options)}; expected a dict of key -> value, such as '
            "{'train_dataloader.batch_size': 64}"
        )
    _check_keys(options, 'options')
    return {key: plain_value(value, f'options[{key!r}]') for key, value in options.items()}


def _by_stem(configs: Sequence[str | os.PathLike[str]]) -> dict[str, str | os.PathLike[str]]:
    """Return name -> config, with the names of their files."""
    named = {Path(config).stem: config for config in configs}
    if len(named) < len(configs):
        raise ConfigError(
            f'configs is {shown(configs)}, of which two have the same name; give a dict of '
            'name -> config'
        )
    return named


def _tune(entry: Mapping[str, Any], sweep: Mapping[str, Sweep]) -> Tune | None:
    given = entry.get('tune')
    if given is not None and not isinstance(given, Tune):
        raise ConfigError(f'tune is {shown(given)}; expected tune(KEY, VALUES)')
    if given is None:
        return None
    if sweep:
        raise ConfigError(
            f'got tune and a sweep of {next(iter(sweep))!r}, for which each value would need '
            'trials of its own; give one of them'
        )
    _check_keys(given.keys, 'tune')
    return given


def _check_trials(methods: list[Method]) -> None:
    """Raise ConfigError unless all tuned methods have the same number of trials."""
    trials = {m.name: m.tune.trials for m in methods if m.tune is not None}
    if len(set(trials.values())) > 1:
        numbers = ', '.join(f'{name} {count}' for name, count in trials.items())
        raise ConfigError(
            f'the numbers of trials differ: {numbers}; give each tuned method as many values'
        )
