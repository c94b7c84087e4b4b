"""What ``easypruner analyze`` prints and draws of a network."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from easypruner.analysis.dot import dot
from easypruner.analysis.summary import analyze
from easypruner.analysis.svg import svg
from easypruner.analysis.table import as_dict, print_analysis
from easypruner.analysis.wiring import wire
from easypruner.base.files import write_whole
from easypruner.base.nested import tensors_in
from easypruner.cli.find_network import Subject
from easypruner.errors import EasyPrunerError
from easypruner.report.text import report_console
from easypruner.slimming import trace


def check_drawings(files: Iterable[str | None], overwrite: bool) -> None:
    """Raise EasyPrunerError if drawings cannot be written to ``files``; None is no file."""
    _check_files([Path(file) for file in files if file], overwrite)


def report_network(
    subject: Subject,
    ignore: Sequence[str],
    attention: str | None,
    as_json: bool,
    every_frozen: bool,
    drawings: Mapping[str, str | None],
) -> None:
    """Print what a network holds, what of it can be pruned, and what stays; draw it.

    Args:
        subject: the network.
        ignore: modules whose channels stay, besides those of its config.
        attention: what attention loses; None for what the config says, or the default.
        as_json: print JSON instead of tables.
        every_frozen: list each frozen dimension, not each reason.
        drawings: ``'dot'`` or ``'svg'`` -> the file to write, or None.
    """
    options = dict(subject.options)
    if ignore:
        options['ignore'] = [*options.get('ignore', ()), *ignore]
    if attention:
        options['attention'] = attention
    graph = trace(subject.model, subject.inputs, **options)
    found = analyze(graph)
    shapes = [list(tensor.shape) for _, tensor in tensors_in(subject.inputs)]
    if as_json:
        content = {'model': subject.name, 'inputs': shapes, **as_dict(graph, found)}
        print(json.dumps(content, indent=2))
    else:
        inputs = ', '.join(' x '.join(map(str, shape)) for shape in shapes)
        every = graph.frozen if every_frozen else None
        print_analysis(report_console(), f'{subject.name}, input {inputs}', found, every)
    for kind, file in drawings.items():
        if file:
            _write(Path(file), _DRAW[kind](wire(graph), subject.name))
            if not as_json:
                print(f'wrote {file}')


_DRAW: Mapping[str, Callable[[Any, str], str]] = {'dot': dot, 'svg': svg}


def _check_files(files: Sequence[Path], overwrite: bool) -> None:
    if len(set(files)) < len(files):
        raise EasyPrunerError('--dot and --svg name the same file; choose two')
    for file in files:
        if file.is_dir():
            raise EasyPrunerError(f'{str(file)!r} is a folder; expected the name of a file')
        if file.exists() and not overwrite:
            raise EasyPrunerError(
                f'{str(file)!r} exists; replace it with --overwrite, or choose another name'
            )


def _write(file: Path, content: str) -> None:
    try:
        write_whole(file, content)
    except OSError as error:
        raise EasyPrunerError(
            f'{str(file)!r} cannot be written: {error.strerror}; choose another place'
        ) from error
