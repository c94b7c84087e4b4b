"""The models on which EasyPruner is measured, from the registries of seven libraries.

Models are selected by rules:

- torchvision, and its detectors: all models of its registry except quantized ones. Their weights
  are packed integers instead of parameters, so they have no dimension that could be cut.
- mmpretrain: one variant of every architecture, which is a pair of model class and backbone class
  in its configurations: the smallest variant that builds without optional dependencies and without
  downloads.
- timm: the smallest variant in every file of models, except models for timm's own tests.
- transformers: every class for image classification of its auto class, and a few language models,
  with at most four layers if their configurations allow it.
- text models of transformers, and networks of diffusers: tiny ones, of the families in
  ``models_text.py`` and ``models_diffusers.py``.
- Ultralytics: the smallest network of every architecture that reads nothing but an image.
- segmentation-models-pytorch: every architecture, and one of them with a dozen encoders.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import json
import multiprocessing
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import astuple, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import models_dense
import models_diffusers
import models_text
import torch
from torch import Tensor, nn

from easypruner.cli.find_network import find_model
from easypruner.graph.recording.tape import ExampleInputs

_SIDE = 224
_DETECTION_SIDE = 320
_FLOW_SIDE = 128
_TOKENS = 32
_LAYERS = 4
# These were trained on clips of 112 px, the other video networks on 224 px.
_SMALL_CLIPS = ('r3d_18', 'mc3_18', 'r2plus1d_18')
_TEXT = ('Albert', 'Bert', 'DistilBert', 'Electra', 'GPT2', 'MobileBert', 'Roberta')

Built = tuple[nn.Module, ExampleInputs]


@dataclass(frozen=True)
class Entry:
    """A model to measure.

    Attributes:
        source: the library.
        name: the name of the model in the library.
        size: the number of parameters that the library states; 0 if it states none.
        family: the architecture or the file of models of which only this variant is measured.
    """

    source: str
    name: str
    size: int = 0
    family: str = ''

    def build(self) -> Built:
        """Return the model, with random weights, and example inputs for it."""
        torch.manual_seed(0)
        return _BUILDERS[self.source](self.name)


def entries(
    source: str, only: str = '', cache: Path | None = None, workers: int = 1
) -> list[Entry]:
    """Return the models of a library; an empty list if it is not installed.

    Args:
        source: the library.
        only: a regular expression that has to match the name or the family.
        cache: a folder for the list, because finding the smallest variants takes minutes.
        workers: the number of processes to find them.
    """
    package = package_of(source)
    if importlib.util.find_spec(package) is None:
        return []
    file = cache / f'{source}-{importlib.metadata.version(package)}.json' if cache else None
    if file is not None and file.is_file():
        found = [Entry(*row) for row in json.loads(file.read_text(encoding='utf-8'))]
    else:
        found = list(_LISTS[source](workers))
    if file is not None and not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps([astuple(entry) for entry in found]), encoding='utf-8')
    return [entry for entry in found if re.search(only, f'{entry.family} {entry.name}')]


def package_of(source: str) -> str:
    """Return the package of a source, such as torchvision for its detectors."""
    return source.partition('.')[0]


# torchvision


def _list_torchvision(workers: int) -> Iterator[Entry]:
    from torchvision import models

    modules = (models, models.segmentation, models.video, models.optical_flow)
    names = sorted({name for module in modules for name in models.list_models(module=module)})
    yield from _of_torchvision('torchvision', names)


def _list_detectors(workers: int) -> Iterator[Entry]:
    from torchvision import models

    names = models.list_models(module=models.detection)
    yield from _of_torchvision('torchvision.detection', names)


def _of_torchvision(source: str, names: Iterable[str]) -> Iterator[Entry]:
    from torchvision import models

    for name in names:
        weights = next(iter(models.get_model_weights(name)), None)
        yield Entry(source, name, weights.meta['num_params'] if weights else 0)


def _build_torchvision(name: str) -> Built:
    from torchvision import models

    clip = (1, 3, 16, _SIDE // 2, _SIDE // 2) if name in _SMALL_CLIPS else None
    subject = find_model(f'torchvision::{name}', clip)
    if name in models.list_models(module=models.detection):
        return subject.model, ([_images(3, _DETECTION_SIDE, _DETECTION_SIDE)],)
    if name in models.list_models(module=models.optical_flow):
        frame = _images(1, 3, _FLOW_SIDE, _FLOW_SIDE)
        return subject.model, (frame, frame.flip(-1))
    return subject.model, subject.inputs


# mmpretrain


def _list_mmpretrain(workers: int) -> Iterator[Entry]:
    from easypruner.engine.compat import prepare

    prepare()
    import mmpretrain
    from mmpretrain.apis.model import ModelHub

    variants: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for name in mmpretrain.list_models():
        try:
            meta = ModelHub.get(name)
        except (KeyError, OSError, RuntimeError):  # the configuration cannot be read
            continue
        size = int(meta.metadata.parameters or 0)
        variants[_architecture(meta.config.model)].append((size, name))
    for family, members in variants.items():
        for size, name in sorted(members):
            if _builds(partial(mmpretrain.get_model, name, pretrained=False)):
                yield Entry('mmpretrain', name, size, family)
                break


def _architecture(config: Mapping[str, Any]) -> str:
    """Return the classes of a model and of its backbone."""
    parts = [config, *(value for key, value in config.items() if key.endswith('backbone'))]
    return ' '.join(str(part.get('type')) for part in parts if isinstance(part, Mapping))


def _builds(build: Callable[[], object]) -> bool:
    """Return whether a model can be built here, without downloads and optional dependencies."""
    try:
        build()
    except Exception:  # any exception of a library
        return False
    return True


def _build_mmpretrain(name: str) -> Built:
    subject = find_model(f'mmpretrain::{name}')
    return subject.model, subject.inputs


# timm


def _list_timm(workers: int) -> Iterator[Entry]:
    import timm

    variants: dict[str, list[str]] = defaultdict(list)
    for name in timm.list_models(exclude_filters='test_*'):
        variants[timm.models.model_entrypoint(name).__module__.rpartition('.')[2]].append(name)
    context = multiprocessing.get_context('spawn')
    with ProcessPoolExecutor(workers, context) as pool:
        smallest = pool.map(_smallest, variants.values())
        for family, (size, name) in zip(variants, smallest, strict=True):
            yield Entry('timm', name, size, family)


def _smallest(names: Iterable[str]) -> tuple[int, str]:
    """Return the timm model with the fewest parameters, and their number."""
    import timm

    sizes = []
    for name in names:
        with contextlib.suppress(Exception), torch.device('meta'):
            model = timm.create_model(name, pretrained=False)
            sizes.append((sum(p.numel() for p in model.parameters()), name))
    return min(sizes)


def _build_timm(name: str) -> Built:
    subject = find_model(f'timm::{name}')
    return subject.model, subject.inputs


# transformers


def _list_transformers(workers: int) -> Iterator[Entry]:
    import transformers
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES,
    )

    for classes in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES.values():
        for name in [classes] if isinstance(classes, str) else classes:
            if hasattr(transformers, name):
                yield Entry('transformers', name)
    for name in _TEXT:
        yield Entry('transformers', f'{name}ForSequenceClassification')


def _build_transformers(name: str) -> Built:
    import transformers

    kind = getattr(transformers, name)
    config = kind.config_class(**_shallow(kind.config_class()))
    try:
        model = kind(config)
    except (AssertionError, IndexError, TypeError, ValueError):
        # Other settings, such as those for each layer, depend on the number of layers.
        config = kind.config_class()
        model = kind(config)
    if name.endswith('ForImageClassification'):
        return model, {'pixel_values': _pixels(config)}
    config.use_cache = False
    tokens = torch.randint(5, 100, (1, _TOKENS), generator=torch.Generator().manual_seed(0))
    return model, {'input_ids': tokens}


def _shallow(config: Any) -> dict[str, int]:
    """Return the settings that limit a configuration to four layers."""
    depths = {n: getattr(config, n, None) for n in ('num_hidden_layers', 'n_layer', 'n_layers')}
    return {n: min(d, _LAYERS) for n, d in depths.items() if isinstance(d, int)}


def _pixels(config: Any) -> Tensor:
    """Return an image of the size in a configuration."""
    part = getattr(config, 'vision_config', config)
    side = getattr(part, 'image_size', None) or _SIDE
    height, width = (side, side) if isinstance(side, int) else side
    return _images(1, getattr(part, 'num_channels', 3), height, width)


def _images(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def _list_of(source: str, names: Callable[[], Iterable[str]]) -> Callable[[int], Iterator[Entry]]:
    return lambda workers: (Entry(source, name) for name in names())


_LISTS: dict[str, Callable[[int], Iterator[Entry]]] = {
    'torchvision': _list_torchvision,
    'torchvision.detection': _list_detectors,
    'mmpretrain': _list_mmpretrain,
    'timm': _list_timm,
    'transformers': _list_transformers,
    'transformers.text': _list_of('transformers.text', models_text.names),
    'ultralytics': _list_of('ultralytics', models_dense.list_ultralytics),
    'diffusers': _list_of('diffusers', lambda: models_diffusers.NETWORKS),
    'segmentation_models_pytorch': _list_of(
        'segmentation_models_pytorch', models_dense.list_segmentation
    ),
}
_BUILDERS: dict[str, Callable[[str], Built]] = {
    'torchvision': _build_torchvision,
    'torchvision.detection': _build_torchvision,
    'mmpretrain': _build_mmpretrain,
    'timm': _build_timm,
    'transformers': _build_transformers,
    'transformers.text': models_text.build,
    'ultralytics': models_dense.build_ultralytics,
    'diffusers': models_diffusers.build,
    'segmentation_models_pytorch': models_dense.build_segmentation,
}
SOURCES = tuple(_LISTS)
