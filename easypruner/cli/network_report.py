"""Prints and draws the analysis of a network for ``easypruner analyze``."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from easypruner.analysis.channels import explain_channel
from easypruner.analysis.dot import dot
from easypruner.analysis.speed import speed
from easypruner.analysis.speed_table import print_speed, speed_as_dict
from easypruner.analysis.summary import analyze
from easypruner.analysis.svg import svg
from easypruner.analysis.table import as_dict, print_analysis
from easypruner.analysis.wiring import wire
from easypruner.base.files import write_whole
from easypruner.base.nested import tensors_in
from easypruner.cli.find_network import Subject
from easypruner.errors import EasyPrunerError
from easypruner.graph import ChannelGraph
from easypruner.plugins.targets import runtime_of
from easypruner.report.text import literal_text, report_console
from easypruner.slimming import trace

_DRAWINGS: Mapping[str, Callable[[Any, str], str]] = {'dot': dot, 'svg': svg}


def check_drawings(drawings: Mapping[str, Path], overwrite: bool) -> None:
    """Raise EasyPrunerError if a drawing cannot be written.

    Args:
        drawings: kind of drawing -> its file.
        overwrite: whether existing files may be replaced.
    """
    if len(set(drawings.values())) < len(drawings):
        raise EasyPrunerError('--dot and --svg have the same file; choose two files')
    for file in drawings.values():
        if file.is_dir():
            raise EasyPrunerError(f'{str(file)!r} is a folder; expected the path of a file')
        if file.exists() and not overwrite:
            raise EasyPrunerError(
                f'{str(file)!r} exists; replace it with --overwrite, or choose another name'
            )


def trace_subject(
    subject: Subject,
    ignore: Sequence[str],
    attention: str | None,
    grouped: str | None,
    runtime: str | None = None,
    outputs: Sequence[str] = (),
) -> ChannelGraph:
    """Trace a network.

    Args:
        subject: the network.
        ignore: modules whose channels are kept, besides those of the network's config.
        attention: what to remove from attention; None for what the network's config says.
        grouped: what to remove from grouped convolutions, likewise.
        runtime: the name of the runtime whose fast widths groups keep to; None for any widths.
        outputs: the outputs that count; none for what the network's config says, or all.

    Raises:
        EasyPrunerError: the runtime is not installed.
    """
    options = dict(subject.options)
    if ignore:
        options['ignore'] = [*options.get('ignore', ()), *ignore]
    if attention:
        options['attention'] = attention
    if outputs:
        options['outputs'] = list(outputs)
    if grouped:
        options['grouped'] = grouped
    if runtime:
        target = runtime_of(runtime, '--runtime')
        target.check()
        options['target'] = target
    return trace(subject.model, subject.inputs, **options)


def print_report(
    subject: Subject,
    graph: ChannelGraph,
    as_json: bool,
    every_frozen: bool,
    runtime: str | None = None,
) -> None:
    """Print tables or JSON.

    Args:
        subject: the network.
        graph: its channel graph.
        as_json: whether to print JSON.
        every_frozen: whether to list each frozen dimension instead of each reason.
        runtime: the name of the runtime in which to measure the network; None for no times.
    """
    found = analyze(graph)
    times = speed(graph, runtime_of(runtime, '--runtime')) if runtime else None
    shapes = [list(tensor.shape) for _, tensor in tensors_in(subject.inputs)]
    if as_json:
        content = {'model': subject.name, 'inputs': shapes, **as_dict(graph, found)}
        if times is not None:
            content['speed'] = speed_as_dict(times)
        print(json.dumps(content, indent=2))
    else:
        inputs = ', '.join(' x '.join(map(str, shape)) for shape in shapes)
        title = f'{subject.name}, input {inputs}'
        print_analysis(report_console(), title, found, graph.frozen if every_frozen else None)
        if times is not None:
            print_speed(report_console(), times)


def print_explanations(graph: ChannelGraph, channels: Sequence[str], as_json: bool) -> None:
    """Print what goes with some channels, or why they stay.

    Args:
        graph: the channel graph of the network.
        channels: the channels, such as ``'layer3.0.conv2[17]'``.
        as_json: whether to print JSON.

    Raises:
        ConfigError: there is no such channel.
    """
    found = [explain_channel(graph, channel) for channel in channels]
    if as_json:
        print(json.dumps([explanation.to_json() for explanation in found], indent=2))
        return
    text = literal_text('\n\n'.join(map(str, found))).plain
    report_console().out(text, highlight=False)


def draw(kind: str, graph: ChannelGraph, title: str, file: Path) -> None:
    """Draw layers and groups.

    Raises:
        EasyPrunerError: the file cannot be written.
    """
    try:
        write_whole(file, _DRAWINGS[kind](wire(graph), title))
    except OSError as error:
        raise EasyPrunerError(
            f'{str(file)!r} cannot be written: {error.strerror}; choose another file'
        ) from error
