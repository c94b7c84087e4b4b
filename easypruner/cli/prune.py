"""The command ``easypruner prune``: the stages of a config, one after the other."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from easypruner.cli.configs import find_config
from easypruner.cli.options import Commands, PluginOptions, add_command
from easypruner.errors import ConfigError


@dataclass(frozen=True)
class PruneArguments:
    """The arguments of ``easypruner prune``.

    Attributes:
        config: path of a config, or the name of a shipped one.
        work_dir: folder of the run; None for the default.
        resume: go on at the first unfinished stage.
        overwrite: replace an existing run.
        plan: check the config and print what it does, nothing more.
        seed: instead of the config's; None for that.
        cfg_options: changes of the config, each ``KEY=VALUE``.
        launcher: what has started the processes of the run.
        verbose: show all logs.
        plugins: which to load.
    """

    config: str
    work_dir: str | None
    resume: bool
    overwrite: bool
    plan: bool
    seed: int | None
    cfg_options: list[str]
    launcher: Literal['none', 'pytorch']
    verbose: bool
    plugins: PluginOptions


def add_prune(commands: Commands) -> None:
    """Add the command to the command line."""
    parser = add_command(commands, 'prune', PruneArguments, prune, 'run the stages of a config')
    parser.add_argument(
        'config', metavar='CONFIG', help='path of a config, or the name of a shipped one'
    )
    parser.add_argument('--work-dir', metavar='DIR', help='default: work_dirs/NAME OF CONFIG')
    parser.add_argument('--resume', action='store_true', help='go on at the first unfinished stage')
    parser.add_argument('--overwrite', action='store_true', help='replace an existing run')
    parser.add_argument('--plan', action='store_true', help='check the config, print what it does')
    parser.add_argument('--seed', type=int, metavar='N', help="instead of the config's")
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        default=[],
        metavar='KEY=VALUE',
        help='change the config, as in train_dataloader.batch_size=32 or stages.0.epochs=3',
    )
    parser.add_argument(
        '--launcher', choices=('none', 'pytorch'), default='none', help='pytorch: under torchrun'
    )


def prune(arguments: PruneArguments) -> int:
    """Run the stages of a config.

    Raises:
        EasyPrunerError: whatever the user can mend; what was done so far is kept.
    """
    # OpenMP's threads spin while they wait. Where another process needs the core, that slows
    # training on the CPU down tenfold. Read once, when torch is imported.
    os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
    config = find_config(arguments.config)
    options = _parse_options(arguments.cfg_options)
    # torch and MMEngine, for which --help need not wait.
    from easypruner.engine.config import read_config
    from easypruner.pipeline.run import Mode, start

    settings = read_config(config, options)
    plugins = arguments.plugins.load(settings.get('custom_imports') or ())
    start(
        settings,
        config.stem,
        plugins.manager,
        Mode(arguments.resume, arguments.overwrite, arguments.plan),
        work_dir=arguments.work_dir,
        seed=arguments.seed,
        launcher=arguments.launcher,
        verbose=arguments.verbose,
    )
    return 0


def _parse_options(options: Sequence[str]) -> dict[str, Any]:
    """Return ``KEY=VALUE`` strings as a dict, with values as MMEngine reads them."""
    # MMEngine, for which --help need not wait.
    from mmengine.config import DictAction

    for option in options:
        key, equals, _ = option.partition('=')
        if not key or not equals:
            raise ConfigError(f'--cfg-options {option!r} is not understood; expected KEY=VALUE')
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument('--options', nargs='*', action=DictAction, default={})
    return dict(parser.parse_args(['--options', *options]).options)
