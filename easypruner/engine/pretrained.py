"""Weights that a run starts with: load_from, and the init_cfg of type Pretrained of models.

MMEngine loads such an init_cfg without checking that it fits, and unpickles the file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from mmengine.config import Config
from mmengine.model.weight_init import PretrainedInit, update_init_info
from mmengine.registry import MODELS
from mmengine.runner import checkpoint as zoo
from torch import nn

from easypruner.checkpoints.files import is_url
from easypruner.checkpoints.loading import Loading, fit, load
from easypruner.checkpoints.source import Source, source_of
from easypruner.engine.config import building, model_settings
from easypruner.engine.model_memory import check_memory
from easypruner.errors import ConfigError, EasyPrunerError, Mistakes, nearest

_ZOOS: Mapping[str, tuple[str, str | None]] = {
    'torchvision': ('get_torchvision_models', None),
    'modelzoo': ('get_torchvision_models', None),
    'open-mmlab': ('get_external_models', None),
    'openmmlab': ('get_external_models', None),
    'mmcls': ('get_mmcls_models', 'backbone'),
}
"""Scheme of MMEngine -> the function with its URLs, and the prefix of the weights that it takes."""
_WEB = ('http', 'https', 'file')


def weights_source(value: Any, owner: str, argument: str = 'checkpoint') -> Source:
    """Return a source, with the URL in place of a name of MMEngine such as torchvision://resnet50.

    Raises:
        ConfigError: there is no such model, or the value is not a source.
    """
    source = source_of(value, owner, argument)
    if not is_url(source.checkpoint):
        return source
    scheme, _, name = source.checkpoint.partition('://')
    if scheme in _WEB:
        return source
    if scheme not in _ZOOS:
        raise ConfigError(
            f'{argument}={source.checkpoint!r} of {owner}: {nearest(scheme, [*_ZOOS, *_WEB])}; or '
            'download the file, and give its path'
        )
    function, prefix = _ZOOS[scheme]
    urls = getattr(zoo, function)()
    if name not in urls:
        raise ConfigError(f'{argument}={source.checkpoint!r} of {owner}: {nearest(name, urls)}')
    return replace(source, checkpoint=urls[name], prefix=source.prefix or prefix)


def load_weights(model: nn.Module, checkpoint: Any, owner: str = 'load_weights') -> Loading:
    """Load a checkpoint into ``model``. Every tensor has to fit.

    Args:
        model: the network to change.
        checkpoint: a path, or a dict of the fields of a source.
        owner: what takes the checkpoint; for messages.

    Raises:
        EasyPrunerError: the file is missing or damaged, or its tensors do not fit the model.
    """
    source = weights_source(checkpoint, owner)
    found = fit(model, source.read(), source.rename, source.skip)
    load(model, found)
    return found


def start_from(
    config: Config, checkpoint: str | None, rename: Sequence[str], skip: Sequence[str]
) -> None:
    """Apply --load-from, --rename and --skip to a config.

    Args:
        config: the config, which is changed.
        checkpoint: replaces the load_from of the config; None to keep it.
        rename: the rules of --rename, which replace those of the config if there are any.
        skip: the patterns of --skip, which replace those of the config if there are any.

    Raises:
        ConfigError: there is no checkpoint for the rules.
    """
    given = config.get('load_from') if checkpoint is None else checkpoint
    more = {name: list(value) for name, value in (('rename', rename), ('skip', skip)) if value}
    if more and given is None:
        raise ConfigError(
            f'got --{next(iter(more))}, but no checkpoint; give it with --load-from, or as '
            'load_from of the config'
        )
    if more:
        given = {**(given if isinstance(given, Mapping) else {'checkpoint': given}), **more}
    if given is not None:
        config.load_from = given


def starts_trained(config: Config) -> bool:
    """Return whether the whole network of a config starts with trained weights."""
    model = config.get('model') or {}
    init = model.get('init_cfg') or ()
    loads = any(_is_pretrained(each) for each in ([init] if isinstance(init, Mapping) else init))
    return config.get('load_from') is not None or loads or bool(model.get('pretrained'))


def _is_pretrained(init: Any) -> bool:
    return isinstance(init, Mapping) and init.get('type') in ('Pretrained', PretrainedInit)


def build_initial_model(config: Config, mistakes: Mistakes) -> tuple[nn.Module | None, list[str]]:
    """Build the original model of a run, and load the weights with which the run starts.

    Args:
        config: the config of the run.
        mistakes: gets the mistakes.

    Returns:
        the model, or None after a mistake in it; and a line for each checkpoint.
    """
    notes: list[str] = []
    start = config.get('load_from')
    source = weights = None
    if start is not None:
        with mistakes.collect('load_from'):
            source = weights_source(start, 'load_from')
            weights = source.read()
    if not isinstance(config.get('model'), Mapping):
        return None, notes
    with mistakes.collect('model'), building():
        check_memory(config)
        model: nn.Module = MODELS.build(model_settings(config))
        with strict_pretrained(model, notes):
            getattr(model, 'init_weights', lambda: None)()
        if source is not None and weights is not None:
            with mistakes.collect('load_from'):
                found = fit(model, weights, source.rename, source.skip)
                load(model, found)
                notes.append(f'load_from: {found}')
        return model, notes
    return None, notes


@contextmanager
def strict_pretrained(model: nn.Module, notes: list[str]) -> Iterator[None]:
    """Let each init_cfg of type Pretrained in a model load strictly, and without unpickling.

    It may also have the fields ``rename``, ``skip`` and ``key`` of a source.

    Args:
        model: the whole model.
        notes: gets a line for each checkpoint.
    """

    def initialize(init: Any, module: nn.Module) -> None:
        named = model.named_modules(prefix='model')
        path = next(name for name, each in named if each is module)
        where = f'{path}.init_cfg'
        try:
            source = weights_source(init.given, where)
            weights = source.read()
        except EasyPrunerError as error:
            raise ConfigError(
                f'the weights of {where}.checkpoint={init.checkpoint!r} cannot be loaded: '
                f'{error}; or leave them out: {where}=None'
            ) from error
        try:
            found = fit(module, weights, source.rename, source.skip, module is not model)
            load(module, found)
        except EasyPrunerError as error:
            raise ConfigError(f'{where}: {error}') from error
        notes.append(f'{where}: {found}')
        if hasattr(module, '_params_init_info'):
            update_init_info(module, init_info=f'Pretrained: load from {source.checkpoint}')

    with _patched(initialize):
        yield


@contextmanager
def no_pretrained() -> Iterator[None]:
    """Let each init_cfg of type Pretrained do nothing, because other weights are loaded later."""
    with _patched(lambda init, module: None):
        yield


@contextmanager
def _patched(initialize: Callable[[Any, nn.Module], None]) -> Iterator[None]:
    """Replace what MMEngine's Pretrained does, in the block."""

    def remember(
        init: Any, checkpoint: Any, prefix: Any = None, map_location: Any = 'cpu', **more: Any
    ) -> None:
        init.checkpoint, init.prefix, init.map_location = checkpoint, prefix, map_location
        init.given = {'checkpoint': checkpoint, 'prefix': prefix, **more}

    before = PretrainedInit.__init__, PretrainedInit.__call__
    PretrainedInit.__init__, PretrainedInit.__call__ = remember, initialize
    try:
        yield
    finally:
        PretrainedInit.__init__, PretrainedInit.__call__ = before
