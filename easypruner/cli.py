"""The command line: easypruner prune, analyze, compare, plugins, new-plugin.

Parsing needs nothing heavy, so that --help answers at once; each command imports what it needs.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import easypruner
from easypruner.errors import ConfigError, EasyPrunerError
from easypruner.new_plugin import KINDS

if TYPE_CHECKING:
    from easypruner.plugins import Plugins


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    0: done; 2: something the user gave cannot be used (one message on stderr); 130: interrupted.
    Wrong options end in argparse's own exit, with code 2 as well.

    Args:
        argv: the arguments; those of the process where None.
    """
    args = _parser().parse_args(argv)
    try:
        code: int = args.command(args)
    except EasyPrunerError as error:
        if args.verbose:
            traceback.print_exc()
        # Under torchrun the processes of a machine meet the same mistake: one tells it.
        if os.environ.get('LOCAL_RANK', '0') == '0':
            print(f'easypruner: {error}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print('easypruner: interrupted', file=sys.stderr)
        return 130
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog='easypruner', description=easypruner.__doc__)
    parser.add_argument('--version', action='version', version=easypruner.__version__)
    commands = parser.add_subparsers(metavar='COMMAND', required=True)
    _add_prune(commands)
    _add_analyze(commands)
    _add_compare(commands)
    _add_plugins(commands)
    _add_new_plugin(commands)
    return parser


def _add_prune(commands: Any) -> None:
    parser = _add_command(commands, 'prune', _prune, 'run the stages of a config')
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


def _add_analyze(commands: Any) -> None:
    summary = 'tell what of a network can be pruned, what it holds, and what stays and why'
    parser = _add_command(commands, 'analyze', _analyze, summary)
    parser.add_argument(
        'subject',
        metavar='MODEL|CONFIG',
        help='a model of torchvision, mmpretrain or timm, as resnet50 or torchvision::resnet50; '
        'or a config, by path or shipped name',
    )
    parser.add_argument(
        '--input-shape',
        type=_shape,
        metavar='N,C,H,W',
        help="default: the model's usual; for configs, the first validation sample's",
    )
    parser.add_argument('--json', action='store_true', help='print JSON instead of tables')
    parser.add_argument(
        '--frozen', action='store_true', help='list each frozen dimension, not each reason'
    )
    parser.add_argument(
        '--ignore',
        action='append',
        default=[],
        metavar='MODULE',
        help='keep the channels of a module: its path, a glob or a class name; may be repeated',
    )
    parser.add_argument(
        '--attention',
        choices=('width', 'heads'),
        help='what attention loses: width of every head, or whole heads; default: width',
    )
    parser.add_argument('--dot', metavar='FILE', help='write layers and groups for Graphviz')
    parser.add_argument('--svg', metavar='FILE', help='draw layers and groups')
    parser.add_argument('--overwrite', action='store_true', help='replace existing drawings')


def _shape(text: str) -> tuple[int, ...]:
    """Return sizes from ``N,C,H,W``."""
    try:
        sizes = tuple(int(size) for size in text.split(','))
    except ValueError:
        sizes = ()
    if not sizes or min(sizes) < 1:
        raise argparse.ArgumentTypeError(
            f'{text!r} is no shape; expected whole numbers from 1, as in 1,3,224,224'
        )
    return sizes


def _add_compare(commands: Any) -> None:
    parser = _add_command(commands, 'compare', _compare, 'set finished runs side by side')
    parser.add_argument('work_dirs', nargs='+', metavar='WORK_DIR', help='folder of a finished run')
    parser.add_argument('--out', metavar='DIR', help='folder to write; default: comparison')
    parser.add_argument('--overwrite', action='store_true', help='replace an earlier comparison')


def _add_plugins(commands: Any) -> None:
    parser = _add_command(commands, 'plugins', _plugins, 'list what configs can name')
    parser.add_argument('--json', action='store_true', help='print JSON instead of a table')


def _add_new_plugin(commands: Any) -> None:
    summary = 'write a plugin to start from, and its test'
    parser = commands.add_parser('new-plugin', help=summary, description=summary)
    parser.set_defaults(command=_new_plugin)
    parser.add_argument('name', metavar='NAME', help='as ReaderNorm or reader_norm')
    parser.add_argument('--kind', required=True, choices=KINDS, help='what it contributes')
    parser.add_argument('--dir', default='my_plugins', metavar='DIR', help='default: my_plugins')
    parser.add_argument('--overwrite', action='store_true', help='replace files that are there')
    parser.add_argument('-v', '--verbose', action='store_true', help='show tracebacks of errors')


def _add_command(commands: Any, name: str, command: Any, summary: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=summary, description=summary)
    parser.set_defaults(command=command)
    parser.add_argument(
        '--plugins',
        action='append',
        default=[],
        metavar='DIR',
        help='folder whose files are plugins too; may be given several times',
    )
    parser.add_argument(
        '--skip-broken-plugins', action='store_true', help='pass over plugins that do not load'
    )
    parser.add_argument(
        '--disable-plugin',
        action='append',
        default=[],
        metavar='NAME',
        help='do not load this plugin; may be given several times',
    )
    parser.add_argument(
        '-v', '--verbose', action='store_true', help='show all logs, and tracebacks of errors'
    )
    return parser


def _prune(args: argparse.Namespace) -> int:
    from easypruner.configs import find_config

    # OpenMP's threads spin while they wait. Where another process needs the core, that slows
    # training on the CPU down tenfold. Read once, when torch is imported.
    os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
    args.config = find_config(args.config)
    args.cfg_options = _parse_options(args.cfg_options)

    from easypruner.pipeline.run import prune_command

    return prune_command(args)


def _analyze(args: argparse.Namespace) -> int:
    from easypruner.analysis.command import analyze_command

    return analyze_command(args)


def _compare(args: argparse.Namespace) -> int:
    from easypruner.report.compare import compare_command

    args.manager = _load_plugins(args).manager
    compare_command(args)
    return 0


def _plugins(args: argparse.Namespace) -> int:
    from easypruner.plugins.listing import print_plugins

    print_plugins(_load_plugins(args), as_json=args.json)
    return 0


def _new_plugin(args: argparse.Namespace) -> int:
    from easypruner.new_plugin import new_plugin_command

    return new_plugin_command(args)


def _load_plugins(args: argparse.Namespace) -> Plugins:
    from easypruner.plugins import load_plugins

    return load_plugins(
        folders=[Path(folder) for folder in args.plugins],
        skip_broken=args.skip_broken_plugins,
        disable=args.disable_plugin,
    )


def _parse_options(options: Sequence[str]) -> dict[str, Any]:
    """Return ``KEY=VALUE`` strings as a dict, with values as MMEngine reads them."""
    from mmengine.config import DictAction

    for option in options:
        key, equals, _ = option.partition('=')
        if not key or not equals:
            raise ConfigError(f'--cfg-options {option!r} is not understood; expected KEY=VALUE')
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument('--options', nargs='*', action=DictAction, default={})
    return dict(parser.parse_args(['--options', *options]).options)


if __name__ == '__main__':
    sys.exit(main())
