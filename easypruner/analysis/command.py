"""The command ``easypruner analyze``."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from easypruner.analysis.dot import dot
from easypruner.analysis.models import Subject, example_images, find_model
from easypruner.analysis.summary import analyze
from easypruner.analysis.svg import svg
from easypruner.analysis.table import as_dict, print_analysis
from easypruner.analysis.wiring import wire
from easypruner.configs import shipped_configs
from easypruner.engine.building import building, model_settings
from easypruner.engine.compat import prepare, quiet
from easypruner.engine.runner import example_input, graph_options
from easypruner.errors import ConfigError, EasyPrunerError, nearest
from easypruner.files import write_whole
from easypruner.graph import trace
from easypruner.graph.tape import tensors_in
from easypruner.pipeline.run import read_config
from easypruner.plugins import load_plugins
from easypruner.report.text import report_console


def analyze_command(args: Namespace) -> int:
    """Run ``easypruner analyze``; see its --help for the arguments."""
    drawings = [(Path(file), draw) for file, draw in ((args.dot, dot), (args.svg, svg)) if file]
    _check_files([file for file, _ in drawings], args.overwrite)
    subject = _find(args)
    options = dict(subject.options)
    if args.ignore:
        options['ignore'] = [*options.get('ignore', ()), *args.ignore]
    if args.attention:
        options['attention'] = args.attention
    graph = trace(subject.model, subject.inputs, **options)
    found = analyze(graph)
    shapes = [list(tensor.shape) for _, tensor in tensors_in(subject.inputs)]
    if args.json:
        content = {'model': subject.name, 'inputs': shapes, **as_dict(graph, found)}
        print(json.dumps(content, indent=2))
    else:
        inputs = ', '.join(' x '.join(map(str, shape)) for shape in shapes)
        every = graph.frozen if args.frozen else None
        print_analysis(report_console(), f'{subject.name}, input {inputs}', found, every)
    for file, draw in drawings:
        _write(file, draw(wire(graph), subject.name))
        if not args.json:
            print(f'wrote {file}')
    return 0


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


def _find(args: Namespace) -> Subject:
    """Build what the command line names: a config, if there is one of that name, or a model."""
    path = Path(args.subject)
    shipped = shipped_configs()
    config = path if path.suffix and path.is_file() else shipped.get(args.subject)
    if config is None and path.suffix == '.py':
        raise ConfigError(
            f'there is no config {args.subject!r}; '
            f'among the shipped ones: {nearest(path.stem, shipped)}'
        )
    settings = None if config is None else read_config(config, {})
    load_plugins(
        folders=args.plugins,
        custom_imports=(settings or {}).get('custom_imports') or (),
        skip_broken=args.skip_broken_plugins,
        disable=args.disable_plugin,
    )
    if not args.verbose:
        quiet(MMLogger.get_current_instance())
    if settings is None:
        return find_model(args.subject, args.input_shape, shipped)
    prepare()
    return _of_config(str(config), settings, args.input_shape)


def _of_config(name: str, config: Config, shape: Sequence[int] | None) -> Subject:
    """Build a config's model, and the input that its pipeline would trace it on."""
    init_default_scope(config.get('default_scope', 'mmpretrain'))
    if config.get('model') is None:
        raise ConfigError(f'{name!r} has no model')
    with building('the model'):
        model: nn.Module = MODELS.build(model_settings(config))
    if shape is not None:
        images = {'inputs': example_images(shape), 'mode': 'tensor'}
        return Subject(name, model, images, graph_options(config))
    if config.get('val_dataloader') is None:
        raise ConfigError(f'{name!r} has no val_dataloader; say what goes in with --input-shape')
    try:
        with building('val_dataloader'):
            return Subject(name, model, example_input(config, model), graph_options(config))
    except ConfigError as error:
        raise ConfigError(f'{error}; or say what goes in with --input-shape') from error
