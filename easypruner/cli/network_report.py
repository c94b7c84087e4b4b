"""Prints and draws the analysis of a network for ``easypruner analyze``."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from easypruner.analysis.dot import dot
from easypruner.analysis.summary import analyze
from easypruner.analysis.svg import svg
from easypruner.analysis.table import as_dict, print_analysis
from easypruner.analysis.wiring import wire
from easypruner.base.files import write_whole
from easypruner.base.nested import tensors_in
from easypruner.cli.analyze import AnalyzeArguments
from easypruner.cli.find_network import Subject
from easypruner.errors import EasyPrunerError
from easypruner.report.text import report_console
from easypruner.slimming import trace

_DRAWINGS: Mapping[str, Callable[[Any, str], str]] = {'dot': dot, 'svg': svg}


def check_drawings(arguments: AnalyzeArguments) -> None:
    """Raise EasyPrunerError if a drawing cannot be written."""
    files = list(_drawings(arguments).values())
    if len(set(files)) < len(files):
        raise EasyPrunerError('--dot and --svg have the same file; choose two files')
    for file in files:
        if file.is_dir():
            raise EasyPrunerError(f'{str(file)!r} is a folder; expected the path of a file')
        if file.exists() and not arguments.overwrite:
            raise EasyPrunerError(
                f'{str(file)!r} exists; replace it with --overwrite, or choose another name'
            )


def report_network(subject: Subject, arguments: AnalyzeArguments) -> None:
    """Print what can be pruned in a network, what it costs, and what is frozen; draw it."""
    options = dict(subject.options)
    if arguments.ignore:
        options['ignore'] = [*options.get('ignore', ()), *arguments.ignore]
    if arguments.attention:
        options['attention'] = arguments.attention
    graph = trace(subject.model, subject.inputs, **options)
    found = analyze(graph)
    shapes = [list(tensor.shape) for _, tensor in tensors_in(subject.inputs)]
    if arguments.json:
        content = {'model': subject.name, 'inputs': shapes, **as_dict(graph, found)}
        print(json.dumps(content, indent=2))
    else:
        inputs = ', '.join(' x '.join(map(str, shape)) for shape in shapes)
        every = graph.frozen if arguments.frozen else None
        print_analysis(report_console(), f'{subject.name}, input {inputs}', found, every)
    for kind, file in _drawings(arguments).items():
        _write(file, _DRAWINGS[kind](wire(graph), subject.name))
        if not arguments.json:
            print(f'wrote {file}')


def _drawings(arguments: AnalyzeArguments) -> dict[str, Path]:
    """Return kind of drawing -> file, for the drawings that are to be written."""
    files = {'dot': arguments.dot, 'svg': arguments.svg}
    return {kind: Path(file) for kind, file in files.items() if file}


def _write(file: Path, content: str) -> None:
    try:
        write_whole(file, content)
    except OSError as error:
        raise EasyPrunerError(
            f'{str(file)!r} cannot be written: {error.strerror}; choose another file'
        ) from error
