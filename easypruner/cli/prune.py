"""The command ``easypruner prune``: runs the stages of a config."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from easypruner.base.launchers import set_environment
from easypruner.cli.openmmlab import OpenMMLabArguments
from easypruner.cli.options import flag, option, parse_seconds, positional, repeated
from easypruner.engine.foreign_configs import is_foreign
from easypruner.errors import ConfigError
from easypruner.pipeline.configs import find_config
from easypruner.pipeline.recipes import Recipe


@dataclass(frozen=True, kw_only=True)
class PruneArguments(OpenMMLabArguments):
    """The arguments of ``easypruner prune``."""

    config: str = positional(
        'path of a config, name of a shipped config, or PACKAGE::PATH', metavar='CONFIG'
    )
    overwrite: bool = flag('replace an existing run')
    plan: bool = flag('check the config and print the plan, without running it')
    seed: int | None = option('replaces the seed of the config', type=int, metavar='N')
    recipe: str | None = option(
        'stages of a method: the name of a shipped recipe, such as masksparsity, or a path',
        metavar='NAME',
    )
    macs: str | None = option('share of the MACs to keep, such as 0.5 or 50%%', metavar='SHARE')
    params: str | None = option('share of the parameters to keep', metavar='SHARE')
    load_from: str | None = option(
        'checkpoint to start from, in place of the load_from of the config: a file of torch or '
        'safetensors, or a folder of Hugging Face',
        metavar='CHECKPOINT',
    )
    rename: Sequence[str] = repeated(
        'how the names of the checkpoint become those of the model: a map such as '
        "'torchvision->mmpretrain', 'REGEX=>REPLACEMENT', a JSON file of pairs, or by_structure",
        'RULE',
    )
    skip: Sequence[str] = repeated(
        "let the weights with these names keep their initial values, such as 'head.fc.*'", 'REGEX'
    )
    cfg_options: Sequence[str] = option(
        'change the config, for example train_dataloader.batch_size=32 or stages.0.epochs=3',
        nargs='+',
        default=[],
        metavar='KEY=VALUE',
    )
    store: str | None = option(
        'folder of finished stages that runs share: those in it are linked, the others added',
        metavar='DIR',
    )
    grace: float = option(
        'time to save where the run stands after SIGTERM; default: 20',
        type=parse_seconds,
        metavar='SECONDS',
        default=20.0,
    )


def prune(arguments: PruneArguments) -> int:
    """Run the stages of a config.

    Raises:
        EasyPrunerError: the user can fix the problem; finished stages are kept.
    """
    # By default, OpenMP's threads spin while they wait. If another process needs their core, this
    # makes training on CPUs up to ten times slower. torch reads the variable when it is imported.
    os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
    set_environment(arguments.launcher, arguments.local_rank)
    folder = arguments.run_folder
    config = find_config(arguments.config)
    recipe = Recipe.of(arguments.recipe, arguments.macs, arguments.params)
    options = _parse_options(arguments.cfg_options)
    # These modules import torch and MMEngine, and --help has to be fast.
    from easypruner.engine.config import read_config
    from easypruner.engine.pretrained import start_from
    from easypruner.pipeline.run import start
    from easypruner.pipeline.work_dir import Mode

    settings = read_config(
        config,
        options,
        foreign=is_foreign(arguments.config),
        complete=lambda read: recipe.complete(read, options, arguments.load_from),
    )
    arguments.change(settings)
    start_from(settings, arguments.load_from, arguments.rename, arguments.skip)
    plugins = arguments.load_plugins(settings.get('custom_imports') or ())
    start(
        settings,
        config.stem if recipe.file is None else f'{config.stem}_{recipe.file.stem}',
        plugins.manager,
        Mode(arguments.resume is not None, arguments.overwrite, arguments.plan),
        work_dir=folder or settings.get('work_dir'),
        seed=arguments.seed,
        launcher=arguments.launcher,
        verbose=arguments.verbose,
        grace=arguments.grace,
        store=arguments.store,
    )
    return 0


def _parse_options(options: Sequence[str]) -> dict[str, Any]:
    """Convert ``KEY=VALUE`` strings to a dict, with values as MMEngine reads them."""
    # MMEngine is slow to import, and --help has to be fast.
    from mmengine.config import DictAction

    for text in options:
        key, equals, _ = text.partition('=')
        if not key or not equals:
            raise ConfigError(f'--cfg-options has {text!r}; expected KEY=VALUE')
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument('--options', nargs='*', action=DictAction, default={})
    return dict(parser.parse_args(['--options', *options]).options)
