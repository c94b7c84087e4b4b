"""Before a run starts: every mistake of its config, found and told together."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmengine.config import Config
from mmengine.registry import MODELS
from mmengine.runner import Runner
from torch import nn

from easypruner.contracts import Stage
from easypruner.engine.runner import RUNNER_KEYS, example_input
from easypruner.errors import ConfigError, EasyPrunerError, Mistakes
from easypruner.graph import ChannelGraph, trace
from easypruner.pipeline.stages.masks import SelectMask
from easypruner.registry import STAGES, build_list

OWN_KEYS = frozenset({'stages', 'seed'})
_ALSO_KNOWN = frozenset({'custom_imports', 'env_cfg', 'default_scope', 'data_preprocessor',
                         'auto_scale_lr', 'find_unused_parameters', 'sync_bn'})  # fmt: skip
_NEEDED = ('model', 'train_dataloader', 'val_dataloader', 'val_evaluator', 'val_cfg')
_TYPO = 0.8


@dataclass(frozen=True)
class Preflight:
    """What was built to check a config, for the plan to use.

    Attributes:
        stages: of the run.
        graph: of the original model, with its initial weights.
        epoch_length: iterations of a training epoch.
    """

    stages: Sequence[Stage]
    graph: ChannelGraph
    epoch_length: int


def check(config: Config, seed: int) -> Preflight:
    """Check a whole config.

    Raises:
        ConfigError: all its mistakes, each with its place.
    """
    mistakes = Mistakes()
    _check_keys(config, mistakes)
    stages: Sequence[Stage] = []
    with mistakes.collect():
        stages = build_list(STAGES, config.get('stages') or [], path='stages')
    if not config.get('stages'):
        mistakes.add('the config has no stages; expected stages = [dict(type=...), ...]')
    for place, stage in enumerate(stages):
        with mistakes.collect(f'stages[{place}]'):
            stage.check()
    mistakes.raise_all()
    lengths = [_loader_length(config, name, mistakes) for name in _LOADERS]
    model = _build_model(config, mistakes)
    mistakes.raise_all()
    assert model is not None
    graph = trace(model, example_input(config, model))
    for place, stage in enumerate(stages):
        if isinstance(stage, SelectMask):
            with mistakes.collect(f'stages[{place}]'):
                stage.check_budget(graph, seed)
    mistakes.raise_all()
    return Preflight(stages, graph, lengths[0])


_LOADERS = ('train_dataloader', 'val_dataloader')


def _check_keys(config: Config, mistakes: Mistakes) -> None:
    known = RUNNER_KEYS | OWN_KEYS | _ALSO_KNOWN
    content = config.to_dict()
    for key, value in content.items():
        if key in known:
            continue
        close = difflib.get_close_matches(key, known, n=1, cutoff=_TYPO)
        if close:
            mistakes.add(f'unknown key {key!r}; did you mean {close[0]!r}?')
        elif not _used(value, {k: v for k, v in content.items() if k != key}):
            mistakes.add(
                f'unknown key {key!r}, whose value nothing in the config uses; '
                'known are the arguments of an MMEngine Runner, and: '
                + ', '.join(sorted(OWN_KEYS | _ALSO_KNOWN))
            )
    for key in _NEEDED:
        if key not in content or (content[key] is None and key != 'val_cfg'):
            mistakes.add(f'the config has no {key}')


def _used(value: Any, content: Any) -> bool:
    """Tell whether a helper variable's value stands somewhere in the config."""
    if type(content) is type(value) and content == value:
        return True
    if isinstance(content, Mapping):
        return any(_used(value, item) for item in content.values())
    if isinstance(content, list | tuple):
        return any(_used(value, item) for item in content)
    return False


def _loader_length(config: Config, name: str, mistakes: Mistakes) -> int:
    """Return the number of batches of a data loader, whose data is looked for."""
    settings = {**config[name].to_dict(), 'num_workers': 0, 'persistent_workers': False}
    with mistakes.collect(name):
        try:
            length = len(Runner.build_dataloader(settings))
        except EasyPrunerError:
            raise
        except (OSError, AssertionError, RuntimeError) as error:
            raise ConfigError(
                f'its data cannot be read: {_first_line(error)}; '
                'put the data there, or set data_root'
            ) from error
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise ConfigError(f'cannot be built: {_first_line(error)}') from error
        if not length:
            raise ConfigError('its data set is empty')
        return length
    return 0


def _build_model(config: Config, mistakes: Mistakes) -> nn.Module | None:
    settings = config.model.to_dict()
    if config.get('data_preprocessor') is not None:
        settings.setdefault('data_preprocessor', config.data_preprocessor.to_dict())
    with mistakes.collect('model'):
        try:
            model: nn.Module = MODELS.build(settings)
            if hasattr(model, 'init_weights'):
                model.init_weights()
        except EasyPrunerError:
            raise
        except Exception as error:
            raise ConfigError(f'cannot be built: {_first_line(error)}') from error
        return model
    return None


def _first_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return f'{type(error).__name__}: {text[0]}' if text else type(error).__name__
