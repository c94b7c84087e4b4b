"""Finds the network that ``easypruner analyze`` gets by name: a model, or that of a config."""

from __future__ import annotations

import difflib
import importlib.util
import inspect
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import MODELS, init_default_scope
from torch import Tensor, nn

from easypruner.cli.options import PluginArguments
from easypruner.engine.compat import prepare, quiet
from easypruner.engine.config import DEFAULT_SCOPE, building, model_settings, read_config
from easypruner.engine.model_calls import images_call
from easypruner.engine.runner import example_input, graph_options
from easypruner.errors import ConfigError, nearest
from easypruner.graph.recording.tape import ExampleInputs
from easypruner.pipeline.configs import find_config, shipped_configs

_SEPARATOR = '::'
_SIDE, _INCEPTION_SIDE = 224, 299
_FRAMES = 16
_SUGGESTIONS = 3


@dataclass(frozen=True)
class Subject:
    """A network with an example input.

    Attributes:
        name: the full name of the model, such as ``'torchvision::resnet50'``, or the config's path.
        model: the network, with random weights.
        inputs: the arguments of its forward.
        options: options of :func:`easypruner.trace`.
    """

    name: str
    model: nn.Module
    inputs: ExampleInputs
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Library:
    """A collection of models.

    Attributes:
        names: a function that returns the names of all models.
        build: a function that builds a model by name, without downloading weights.
        shape: a function that returns the usual input shape of a model.
        inputs: a function that makes the arguments of forward from a tensor of images.
    """

    names: Callable[[], Sequence[str]]
    build: Callable[[str], nn.Module]
    shape: Callable[[str, Any], Sequence[int]]
    inputs: Callable[[Tensor], ExampleInputs] = lambda images: images


def find_network(name: str, shape: Sequence[int] | None, plugins: PluginArguments) -> Subject:
    """Build the network of a config, or a model by name.

    Args:
        name: path or name of a config, or the name of a model.
        shape: the shape of the input tensor; None for the usual one.
        plugins: the arguments for plugins and logs.

    Raises:
        ConfigError: there is no such config or model, or it cannot be built.
    """
    path = Path(name)
    shipped = shipped_configs()
    is_config = path.suffix == '.py' or name in shipped or (path.suffix and path.is_file())
    config = find_config(name) if is_config else None
    settings = None if config is None else read_config(config, {})
    plugins.load_plugins((settings or {}).get('custom_imports') or ())
    if not plugins.verbose:
        quiet(MMLogger.get_current_instance())
    if settings is None:
        return find_model(name, shape, shipped)
    prepare()
    return of_config(str(config), settings, shape)


def find_model(
    name: str, shape: Sequence[int] | None = None, configs: Iterable[str] = ()
) -> Subject:
    """Build a model by name.

    Args:
        name: ``'LIBRARY::MODEL'``, or only the name of the model. In the second case, the libraries
            are searched in the order torchvision, mmpretrain, timm.
        shape: the shape of the input tensor; None for the usual one of the model.
        configs: names of configs, for suggestions in the error message.

    Raises:
        ConfigError: there is no such model, or it cannot be built.
    """
    chosen, _, model_name = name.rpartition(_SEPARATOR)
    installed = [library for library in _LIBRARIES if importlib.util.find_spec(library)]
    if chosen and chosen not in installed:
        raise ConfigError(f'there is no library {chosen!r} of models; {nearest(chosen, installed)}')
    known: list[str] = []
    for library_name in [chosen] if chosen else installed:
        library = _LIBRARIES[library_name]()
        names = library.names()
        if model_name in names:
            full_name = f'{library_name}{_SEPARATOR}{model_name}'
            with building(full_name):
                network = library.build(model_name)
            images = example_images(shape or library.shape(model_name, network))
            return Subject(full_name, network, library.inputs(images))
        known += [f'{library_name}{_SEPARATOR}{model}' for model in names]
    hint = _suggest(name, [*known, *(() if chosen else configs)])
    raise ConfigError(f'there is no model or config {name!r}; {hint}')


def example_images(shape: Sequence[int]) -> Tensor:
    """Return random images of a shape, with a fixed seed."""
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def _suggest(name: str, known: Sequence[str]) -> str:
    """Return a hint with the names closest to ``name``, from any library."""
    by_model: dict[str, list[str]] = defaultdict(list)
    for full_name in known:
        by_model[_model_name(full_name)].append(full_name)
    close = difflib.get_close_matches(_model_name(name), by_model, n=_SUGGESTIONS)
    names = [full_name for match in close for full_name in by_model[match]][:_SUGGESTIONS]
    if not names:
        return f'none of the {len(known)} known names is similar, and there is no such file'
    return f'did you mean {" or ".join(names)}?'


def _model_name(full_name: str) -> str:
    return full_name.rpartition(_SEPARATOR)[2].lower()


# The libraries are imported only when they are searched: each takes seconds, and timm is optional.


def _torchvision() -> Library:
    from torchvision import models

    def build(name: str) -> nn.Module:
        known = inspect.signature(models.get_model_builder(name)).parameters
        options: dict[str, Any] = {'weights': None}
        if 'weights_backbone' in known:
            options['weights_backbone'] = None
        if name in ('inception_v3', 'googlenet'):
            # Without this option the model initializes its weights slowly and warns about it.
            options['init_weights'] = False
        return models.get_model(name, **options)

    def shape(name: str, model: nn.Module) -> Sequence[int]:
        if name in models.list_models(module=models.video):
            return (1, 3, _FRAMES, _SIDE, _SIDE)
        side = _INCEPTION_SIDE if name == 'inception_v3' else _SIDE
        return (1, 3, side, side)

    return Library(models.list_models, build, shape)


def _mmpretrain() -> Library:
    prepare()
    import mmpretrain

    def shape(name: str, model: Any) -> Sequence[int]:
        side: Any = _SIDE
        for step in model._config.get('test_pipeline') or ():
            side = step.get('crop_size', step.get('scale', side))
        height, width = (side, side) if isinstance(side, int) else tuple(side)[::-1]
        return (1, 3, height, width)

    return Library(
        mmpretrain.list_models,
        lambda name: mmpretrain.get_model(name, pretrained=False),
        shape,
        lambda images: {'inputs': images, 'mode': 'tensor'},
    )


def _timm() -> Library:
    import timm

    return Library(
        timm.list_models,
        lambda name: timm.create_model(name, pretrained=False),
        lambda name, model: (1, *model.default_cfg['input_size']),
    )


_LIBRARIES = {'torchvision': _torchvision, 'mmpretrain': _mmpretrain, 'timm': _timm}
"""Name -> library, in the order in which libraries are searched."""


def of_config(name: str, config: Config, shape: Sequence[int] | None) -> Subject:
    """Build the model of a config, with the input on which a run would trace it."""
    init_default_scope(config.get('default_scope', DEFAULT_SCOPE))
    if config.get('model') is None:
        raise ConfigError(
            f'{name!r} has no model; give a config that has one, or FILE.py:FUNCTION with a '
            'function that returns a network'
        )
    with building('the model'):
        model: nn.Module = MODELS.build(model_settings(config))
    if shape is not None:
        with building('the input of the model'):
            images = images_call(model, example_images(shape))
        return Subject(name, model, images, graph_options(config))
    if config.get('val_dataloader') is None:
        raise ConfigError(f'{name!r} has no val_dataloader; give the shape with --input-shape')
    try:
        with building('val_dataloader'):
            return Subject(name, model, example_input(config, model), graph_options(config))
    except ConfigError as error:
        raise ConfigError(f'{error}; or give the shape with --input-shape') from error
