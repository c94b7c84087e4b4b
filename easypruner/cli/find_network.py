"""Finding a network: a model of torchvision, mmpretrain or timm by name, or that of a config."""

from __future__ import annotations

import difflib
import importlib.util
import inspect
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import MODELS, init_default_scope
from torch import Tensor, nn

from easypruner.cli.configs import shipped_configs
from easypruner.cli.options import PluginOptions
from easypruner.engine.compat import prepare, quiet
from easypruner.engine.config import building, model_settings, read_config
from easypruner.engine.runner import example_input, graph_options
from easypruner.errors import ConfigError, nearest
from easypruner.graph.recording.tape import ExampleInputs

_SEPARATOR = '::'
_SIDE, _INCEPTION_SIDE = 224, 299
_FRAMES = 16
_SUGGESTIONS = 3


@dataclass(frozen=True)
class Subject:
    """A network with an input to run it on.

    Attributes:
        name: where it comes from, such as ``'torchvision::resnet50'``.
        model: with random weights.
        inputs: that its forward takes.
        options: of :func:`easypruner.trace`.
    """

    name: str
    model: nn.Module
    inputs: ExampleInputs
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Library:
    """A collection of models.

    Attributes:
        names: of all its models.
        build: makes one, without downloading weights.
        shape: that its inputs usually have.
        inputs: what its forward takes, made from a tensor.
    """

    names: Callable[[], Sequence[str]]
    build: Callable[[str], nn.Module]
    shape: Callable[[str, nn.Module], Sequence[int]]
    inputs: Callable[[Tensor], ExampleInputs] = lambda images: images


def find_network(
    name: str, shape: Sequence[int] | None, plugins: PluginOptions, verbose: bool = False
) -> Subject:
    """Build what the command line names: a config, if there is one of that name, or a model.

    Args:
        name: path or name of a config, or the name of a model.
        shape: of the input tensor; None for the usual one.
        plugins: which to load.
        verbose: show all logs.

    Raises:
        ConfigError: there is neither, or it cannot be built.
    """
    path = Path(name)
    shipped = shipped_configs()
    config = path if path.suffix and path.is_file() else shipped.get(name)
    if config is None and path.suffix == '.py':
        raise ConfigError(
            f'there is no config {name!r}; among the shipped ones: {nearest(path.stem, shipped)}'
        )
    settings = None if config is None else read_config(config, {})
    plugins.load((settings or {}).get('custom_imports') or ())
    if not verbose:
        quiet(MMLogger.get_current_instance())
    if settings is None:
        return find_model(name, shape, shipped)
    prepare()
    return _of_config(str(config), settings, shape)


def find_model(
    name: str, shape: Sequence[int] | None = None, configs: Iterable[str] = ()
) -> Subject:
    """Build a model by name.

    Args:
        name: ``'LIBRARY::MODEL'``, or the model alone; then the first library that has it counts:
            torchvision, mmpretrain, timm.
        shape: of the input tensor; the model's usual one if None.
        configs: other names that may have been meant, to be suggested.

    Raises:
        ConfigError: no such model, or it cannot be built.
    """
    library, _, model_name = name.rpartition(_SEPARATOR)
    libraries = dict(_installed())
    if library and library not in libraries:
        raise ConfigError(
            f'there is no library {library!r} to take a model from; '
            f'installed are: {", ".join(libraries)}'
        )
    for place in [library] if library else libraries:
        if model_name in libraries[place].names():
            return _build(place, libraries[place], model_name, shape)
    known = [
        f'{place}{_SEPARATOR}{model}'
        for place in ([library] if library else libraries)
        for model in libraries[place].names()
    ]
    hint = _similar(name, [*known, *(() if library else configs)])
    raise ConfigError(f'there is no model or config {name!r}; {hint}')


def example_images(shape: Sequence[int]) -> Tensor:
    """Return random images of a shape, the same every time."""
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def _build(place: str, library: Library, name: str, shape: Sequence[int] | None) -> Subject:
    full_name = f'{place}{_SEPARATOR}{name}'
    with building(full_name):
        model = library.build(name)
    images = example_images(shape or library.shape(name, model))
    return Subject(full_name, model, library.inputs(images))


def _similar(name: str, known: Sequence[str]) -> str:
    """Return a hint that tells the names closest to ``name``, whatever their library."""
    by_model: dict[str, list[str]] = defaultdict(list)
    for full_name in known:
        by_model[_model_name(full_name)].append(full_name)
    close = difflib.get_close_matches(_model_name(name), by_model, n=_SUGGESTIONS)
    names = [full_name for match in close for full_name in by_model[match]][:_SUGGESTIONS]
    if not names:
        return f'nothing like it is among the {len(known)} known names, and no file is called so'
    return f'did you mean {" or ".join(names)}?'


def _model_name(full_name: str) -> str:
    return full_name.rpartition(_SEPARATOR)[2].lower()


def _installed() -> Iterator[tuple[str, Library]]:
    """Yield the libraries in the order in which they are searched."""
    yield 'torchvision', Library(_torchvision_names, _build_torchvision, _torchvision_shape)
    yield (
        'mmpretrain',
        Library(
            _mmpretrain_names,
            _build_mmpretrain,
            _mmpretrain_shape,
            lambda images: {'inputs': images, 'mode': 'tensor'},
        ),
    )
    if importlib.util.find_spec('timm') is not None:
        yield 'timm', Library(_timm_names, _build_timm, _timm_shape)


def _torchvision_names() -> Sequence[str]:
    import torchvision

    names: list[str] = torchvision.models.list_models()
    return names


def _build_torchvision(name: str) -> nn.Module:
    import torchvision

    known = inspect.signature(torchvision.models.get_model_builder(name)).parameters
    options: dict[str, Any] = {'weights': None}
    if 'weights_backbone' in known:
        options['weights_backbone'] = None
    if name in ('inception_v3', 'googlenet'):
        # Else it warns of slow initial weights, which nothing here looks at.
        options['init_weights'] = False
    model: nn.Module = torchvision.models.get_model(name, **options)
    return model


def _torchvision_shape(name: str, model: nn.Module) -> Sequence[int]:
    import torchvision

    if name in torchvision.models.list_models(module=torchvision.models.video):
        return (1, 3, _FRAMES, _SIDE, _SIDE)
    side = _INCEPTION_SIDE if name == 'inception_v3' else _SIDE
    return (1, 3, side, side)


def _mmpretrain_names() -> Sequence[str]:
    from easypruner.engine.compat import prepare

    prepare()
    import mmpretrain

    names: list[str] = mmpretrain.list_models()
    return names


def _build_mmpretrain(name: str) -> nn.Module:
    import mmpretrain

    model: nn.Module = mmpretrain.get_model(name, pretrained=False)
    return model


def _mmpretrain_shape(name: str, model: nn.Module) -> Sequence[int]:
    config: Any = model._config
    side: Any = _SIDE
    for step in config.get('test_pipeline') or ():
        side = step.get('crop_size', step.get('scale', side))
    height, width = (side, side) if isinstance(side, int) else tuple(side)[::-1]
    return (1, 3, height, width)


def _timm_names() -> Sequence[str]:
    import timm

    names: list[str] = timm.list_models()
    return names


def _build_timm(name: str) -> nn.Module:
    import timm

    model: nn.Module = timm.create_model(name, pretrained=False)
    return model


def _timm_shape(name: str, model: nn.Module) -> Sequence[int]:
    settings: Any = model.default_cfg
    return (1, *settings['input_size'])


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
