"""The command ``easypruner analyze``: reports what can be pruned, what is frozen, and why."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from easypruner.cli.options import PluginArguments, flag, option, positional, repeated


def parse_shape(text: str) -> tuple[int, ...]:
    """Convert ``N,C,H,W`` to sizes."""
    try:
        sizes = tuple(int(size) for size in text.split(','))
    except ValueError:
        sizes = ()
    if not sizes or min(sizes) < 1:
        raise argparse.ArgumentTypeError(
            f'{text!r} is not a shape; expected whole numbers of at least 1, as in 1,3,224,224'
        )
    return sizes


@dataclass(frozen=True, kw_only=True)
class AnalyzeArguments(PluginArguments):
    """The arguments of ``easypruner analyze``."""

    subject: str = positional(
        'model of torchvision, mmpretrain or timm, such as resnet50 or torchvision::resnet50; '
        'config, by its path or by the name of a shipped config; FILE.py:FUNCTION, which returns '
        'a network, or it and its inputs; folder of a finished run; or record (architecture.json)',
        metavar='MODEL|CONFIG|WORK_DIR|RECORD',
    )
    model: str | None = option(
        'the network that a record was made on: a model, a config or FILE.py:FUNCTION',
        metavar='NAME',
    )
    input_shape: tuple[int, ...] | None = option(
        'shape of the input; default: the usual shape of the model, or that of the first '
        'validation sample of the config',
        type=parse_shape,
        metavar='N,C,H,W',
    )
    json: bool = flag('print JSON instead of tables')
    frozen: bool = flag('list each frozen dimension instead of each reason')
    explain: Sequence[str] = repeated(
        'only say what goes with a channel, and by which operations it is tied to that, or why it '
        'stays; such as layer3.0.conv2[17] or layer3.0.conv2.weight[:, 17]',
        'CHANNEL',
    )
    ignore: Sequence[str] = repeated(
        'keep the channels of a module, named by path, pattern or class', 'MODULE'
    )
    attention: Literal['width', 'heads', 'query_heads'] | None = option(
        'what to remove from attention: channels of every head, whole heads, or heads of queries '
        'alone; default: width',
        choices=('width', 'heads', 'query_heads'),
    )
    grouped: Literal['within', 'whole'] | None = option(
        'what to remove from grouped convolutions: channels within every group, or whole groups; '
        'default: within',
        choices=('within', 'whole'),
    )
    outputs: Sequence[str] = repeated(
        'the output that counts, by name or path such as logits, if others may lose channels',
        'NAME',
    )
    runtime: str | None = option(
        'measure the network in a runtime, such as OnnxRuntime, and predict what a cut saves of '
        'its time, on the widths that are fast there',
        metavar='NAME',
    )
    dot: str | None = option('write layers and groups as a Graphviz file', metavar='FILE')
    svg: str | None = option('draw layers and groups as an SVG file', metavar='FILE')
    overwrite: bool = flag('replace existing drawings')


def analyze(arguments: AnalyzeArguments) -> int:
    """Print what can be pruned in a network, and draw it if a file for a drawing is given.

    Raises:
        EasyPrunerError: there is no such network or channel, or a drawing cannot be written.
    """
    # These modules import torch and MMEngine, and --help has to be fast.
    from easypruner.cli.find_pruned import find_pruned
    from easypruner.cli.network_report import (
        check_drawings,
        draw,
        print_explanations,
        print_report,
        trace_subject,
    )

    chosen = {'dot': arguments.dot, 'svg': arguments.svg}
    drawings = {kind: Path(file) for kind, file in chosen.items() if file}
    check_drawings(drawings, arguments.overwrite)
    found = find_pruned(arguments.subject, arguments.input_shape, arguments, arguments.model)
    subject = found.subject
    graph = trace_subject(
        subject,
        arguments.ignore,
        arguments.attention,
        arguments.grouped,
        arguments.runtime,
        arguments.outputs,
    )
    if arguments.explain:
        print_explanations(graph, arguments.explain, arguments.json)
        return 0
    print_report(subject, graph, arguments.json, arguments.frozen, arguments.runtime)
    for kind, file in drawings.items():
        draw(kind, graph, subject.name, file)
        if not arguments.json:
            print(f'wrote {file}')
    return 0
