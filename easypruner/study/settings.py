"""The config of a run of a study: that of its method, with the budget and the swept values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.config import Config

from easypruner.base.describe import shown
from easypruner.engine.config import read_config
from easypruner.engine.foreign_configs import is_foreign
from easypruner.engine.stage_keys import numbered, stage_names
from easypruner.errors import ConfigError, Mistakes
from easypruner.pipeline.configs import find_config
from easypruner.pipeline.preflight import PlannedStage, expand
from easypruner.pipeline.recipes import Recipe, find_recipe
from easypruner.pipeline.stages.reinitialise import Reinitialise
from easypruner.study.baselines import baseline_stages
from easypruner.study.runs import StudyRun

_DATASET = 'easypruner.HeldOut'


def settings_of(run: StudyRun) -> Config:
    """Return the config of a run.

    Raises:
        ConfigError: it cannot be read, or has not one of the keys.
    """
    recipe = Recipe(None if run.recipe is None else find_recipe(run.recipe))
    given = {**run.options, **run.swept}
    # Names of stages are known when the recipe is there; keys of another kind stay as they are.
    whole = read_config(
        find_config(run.config),
        {},
        foreign=is_foreign(run.config),
        complete=lambda config: recipe.complete(config, given),
    )
    names = stage_names(whole.get('stages'))
    config = read_config(
        find_config(run.config),
        {numbered(key, names): value for key, value in given.items()},
        foreign=is_foreign(run.config),
        complete=lambda read: recipe.complete(read, given),
        source='',
    )
    if run.budget is not None:
        _check_budgets(given)
        # Options may have replaced a mask source.
        Recipe(None, (run.budget,)).complete(config, given)
    if run.held_out:
        hold_out(config)
    if run.baseline is not None:
        mistakes = Mistakes()
        planned = expand(config.get('stages') or [], mistakes)
        mistakes.raise_all()
        content = [dict(entry.config) for entry in planned]
        config.stages = baseline_stages(run.baseline, content, epochs_of(planned, config))
    return config


def _check_budgets(given: Mapping[str, Any]) -> None:
    """Raise ConfigError for keys with a budget, which the study's would replace."""
    mistakes = Mistakes()
    for key, value in given.items():
        if 'budget' in key.split('.') or _has_budget(value):
            mistakes.add(
                f'{key}={shown(value)} has a budget, and the budgets of the study are those of all '
                'mask sources; leave one of them out'
            )
    mistakes.raise_all()


def _has_budget(value: Any) -> bool:
    if isinstance(value, Mapping):
        return 'budget' in value or any(map(_has_budget, value.values()))
    return isinstance(value, list) and any(map(_has_budget, value))


def epochs_of(stages: Sequence[PlannedStage], config: Config) -> list[int]:
    """Return the number of epochs of each stage; 0 for those that do not train."""
    return [entry.stage.length(config) if hasattr(entry.stage, 'length') else 0 for entry in stages]


def trained_epochs(stages: Sequence[PlannedStage], epochs: Sequence[int]) -> int:
    """Return the number of epochs that the final weights are trained for.

    Args:
        stages: the stages.
        epochs: the number of epochs of each of them.
    """
    renewed = [n for n, entry in enumerate(stages) if isinstance(entry.stage, Reinitialise)]
    return sum(epochs[max(renewed, default=0) :])


def hold_out(config: Config) -> None:
    """Let a config train on a part of its training data, and validate on the rest of it."""
    training, validation = _dataset(config, 'train_dataloader'), _dataset(config, 'val_dataloader')
    pipeline = validation.get('pipeline')
    if 'pipeline' not in training or pipeline is None:
        raise ConfigError(
            'tune(...) validates on a part of the training data, and needs a pipeline of the data '
            'sets in train_dataloader and val_dataloader; they have none'
        )
    config.train_dataloader.dataset = dict(type=_DATASET, dataset=training, held=False)
    held = {**training, 'pipeline': pipeline}
    config.val_dataloader.dataset = dict(type=_DATASET, dataset=held, held=True)


def _dataset(config: Config, loader: str) -> dict[str, Any]:
    """Return the settings of the data set of a data loader."""
    settings = config.to_dict().get(loader)
    dataset = settings.get('dataset') if isinstance(settings, Mapping) else None
    if not isinstance(dataset, dict):
        raise ConfigError(
            f'{loader}.dataset is {shown(dataset)}; tune(...) holds a part of the training data '
            'out, and expects a dict, such as dict(type=...)'
        )
    return dataset


def plain_parts(config: Config, epochs: int) -> dict[str, Mapping[str, Any]]:
    """Return what the configs of comparable methods have in common: part -> settings."""
    content = config.to_dict()
    keys = {
        'data': ('train_dataloader', 'val_dataloader', 'val_evaluator'),
        'model': ('model', 'data_preprocessor'),
        'recipe': ('optim_wrapper', 'param_scheduler', 'train_cfg', 'load_from'),
        'graph': ('graph',),
    }
    parts = {
        part: {key: content[key] for key in known if content.get(key) is not None}
        for part, known in keys.items()
    }
    parts['recipe'].get('train_cfg', {}).pop('val_interval', None)
    return {**parts, 'epochs': {'epochs of all stages': epochs}}
