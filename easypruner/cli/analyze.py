"""The command ``easypruner analyze``: what of a network can be pruned, and what stays and why."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Literal

from easypruner.cli.options import Commands, PluginOptions, add_command


@dataclass(frozen=True)
class AnalyzeArguments:
    """The arguments of ``easypruner analyze``.

    Attributes:
        subject: a model by name, or a config by path or name.
        input_shape: of the example input; None for the model's usual one.
        json: print JSON instead of tables.
        frozen: list each frozen dimension, not each reason.
        ignore: modules whose channels stay.
        attention: what attention loses; None for the default.
        dot: file to write for Graphviz.
        svg: file to draw.
        overwrite: replace existing drawings.
        verbose: show all logs.
        plugins: which to load.
    """

    subject: str
    input_shape: tuple[int, ...] | None
    json: bool
    frozen: bool
    ignore: list[str]
    attention: Literal['width', 'heads'] | None
    dot: str | None
    svg: str | None
    overwrite: bool
    verbose: bool
    plugins: PluginOptions


def add_analyze(commands: Commands) -> None:
    """Add the command to the command line."""
    summary = 'tell what of a network can be pruned, what it holds, and what stays and why'
    parser = add_command(commands, 'analyze', AnalyzeArguments, analyze, summary)
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


def analyze(arguments: AnalyzeArguments) -> int:
    """Print what a network holds and what of it can be pruned, and draw it where asked to.

    Raises:
        EasyPrunerError: no such model or config, or a drawing that cannot be written.
    """
    # torch and MMEngine, for which --help need not wait.
    from easypruner.cli.find_network import find_network
    from easypruner.cli.network_report import check_drawings, report_network

    check_drawings((arguments.dot, arguments.svg), arguments.overwrite)
    subject = find_network(
        arguments.subject, arguments.input_shape, arguments.plugins, arguments.verbose
    )
    report_network(
        subject,
        arguments.ignore,
        arguments.attention,
        arguments.json,
        arguments.frozen,
        {'dot': arguments.dot, 'svg': arguments.svg},
    )
    return 0


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
