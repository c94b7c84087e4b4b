"""The models on which EasyPruner is measured, from the registries of four libraries.

No model is selected by hand:

- torchvision: all models of its registry except quantized ones. Their weights are packed integers
  instead of parameters, so they have no dimension that could be cut.
- mmpretrain: one variant of every architecture, which is a pair of model class and backbone class
  in its configurations: the smallest variant that builds without optional dependencies and without
  downloads.
- timm: the smallest variant in every file of models, except models for timm's own tests.
- transformers: every class for image classification of its auto class, and a few language models,
  with at most four layers if their configurations allow it.
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

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from easypruner.base.nested import tensors_in
from easypruner.cli.find_network import find_model
from easypruner.graph.recording.inventory import without_fast_path
from easypruner.graph.recording.tape import ExampleInputs, call_arguments

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
    if importlib.util.find_spec(source) is None:
        return []
    file = cache / f'{source}-{importlib.metadata.version(source)}.json' if cache else None
    if file is not None and file.is_file():
        found = [Entry(*row) for row in json.loads(file.read_text(encoding='utf-8'))]
    else:
        found = list(_LISTS[source](workers))
    if file is not None and not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps([astuple(entry) for entry in found]), encoding='utf-8')
    return [entry for entry in found if re.search(only, f'{entry.family} {entry.name}')]


# torchvision


def _list_torchvision(workers: int) -> Iterator[Entry]:
    from torchvision import models

    modules = (models, models.segmentation, models.detection, models.video, models.optical_flow)
    for name in sorted({name for module in modules for name in models.list_models(module=module)}):
        weights = next(iter(models.get_model_weights(name)), None)
        yield Entry('torchvision', name, weights.meta['num_params'] if weights else 0)


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


_LISTS: dict[str, Callable[[int], Iterator[Entry]]] = {
    'torchvision': _list_torchvision,
    'mmpretrain': _list_mmpretrain,
    'timm': _list_timm,
    'transformers': _list_transformers,
}
_BUILDERS: dict[str, Callable[[str], Built]] = {
    'torchvision': _build_torchvision,
    'mmpretrain': _build_mmpretrain,
    'timm': _build_timm,
    'transformers': _build_transformers,
}
SOURCES = tuple(_LISTS)


# What kind of network a model is


@torch.no_grad()
def kind_of(model: nn.Module, example_inputs: ExampleInputs) -> str:
    """Return ``'cnn'`` or ``'other'``, depending on the operations of a forward pass.

    A network is other if it mixes positions by something other than convolutions and pools: a
    matrix product of two activations (attention, correlation volumes), a linear layer over a
    sequence of tokens (an input of three dimensions), or a recurrent layer.
    """
    found: list[str] = []

    def watch(module: nn.Module, args: tuple[Any, ...]) -> None:
        if isinstance(module, nn.RNNBase) or (args and args[0].dim() == 3):
            found.append(type(module).__name__)

    layers = [m for m in model.modules() if isinstance(m, nn.Linear | nn.RNNBase)]
    hooks = [layer.register_forward_pre_hook(watch) for layer in layers]
    args, kwargs = call_arguments(example_inputs)
    products = _ProductsOfActivations([tensor for _, tensor in tensors_in(example_inputs)])
    try:
        with without_fast_path(), products:
            model(*args, **kwargs)
    finally:
        for hook in hooks:
            hook.remove()
    return 'other' if found or products.met else 'cnn'


class _ProductsOfActivations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A mode that detects matrix products of two tensors that both depend on the inputs."""

    def __init__(self, inputs: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.met = False
        # Tensors are stored, so that no new tensor gets the id of a deleted one.
        self._activations = {id(tensor): tensor for tensor in inputs}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        depend = [tensor for tensor in tensors if id(tensor) in self._activations]
        if depend:
            outputs = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
            self._activations.update((id(tensor), tensor) for tensor in outputs)
        name = func.overloadpacket.__name__
        product = name in ('mm', 'bmm', 'addmm', 'baddbmm') and len(depend) > 1
        self.met |= product or 'scaled_dot_product' in name
        return result
