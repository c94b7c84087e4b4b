"""from_pretrained(): loads the folder of a pruned network of Hugging Face of any widths."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from easypruner.base.describe import describe
from easypruner.base.json_fields import Field, read_json
from easypruner.errors import ConfigError, RecordError, missing_package
from easypruner.graph.cutting.handlers import LayerHandler
from easypruner.graph.cutting.network_record import NetworkRecord
from easypruner.graph.pretrained.building import build_empty
from easypruner.graph.pretrained.config_keys import read_config
from easypruner.graph.pretrained.saving import (
    CONFIG_FILE,
    FORMAT,
    MARK,
    RECORD_FILE,
    UNPRUNED,
    WEIGHTS_FILE,
)
from easypruner.plugins.handlers import plugin_handlers

_SHOWN = 3


def from_pretrained(
    folder: str | os.PathLike[str],
    model_class: type[nn.Module] | None = None,
    handlers: Sequence[LayerHandler] = (),
) -> Any:
    """Load the network that ``save_pretrained`` of a pruned network of Hugging Face wrote.

    If the config in the folder describes the network, this is ``from_pretrained`` of its class.
    Otherwise the unpruned architecture is built, cut by the record in the folder, and gets the
    weights. Nothing is downloaded or unpickled, and no code in the folder runs.

    Args:
        folder: the folder.
        model_class: the class of the network; by default the one of transformers that the folder
            names.
        handlers: as given to :func:`easypruner.trace`.

    Returns:
        the network, in evaluation mode.

    Raises:
        ConfigError: there is no such folder, or no such class.
        RecordError: a file is missing, damaged, or does not fit the others.
    """
    path = Path(folder)
    if not path.is_dir():
        raise ConfigError(
            f'there is no folder {os.fspath(folder)!r}; expected one that save_pretrained wrote'
        )
    file = path / CONFIG_FILE
    if not file.is_file():
        raise RecordError(f'the folder {str(path)!r} has no {CONFIG_FILE}; expected one that '
                          'save_pretrained wrote')  # fmt: skip
    content = read_json(file, RecordError)
    mark = content.get(MARK)
    if mark is None:
        kind = _class_of(_first_architecture(content), model_class)
        return kind.from_pretrained(path, use_safetensors=True, local_files_only=True)
    if mark['format'].value != FORMAT:
        mark['format'].fail(f'{FORMAT}; a newer EasyPruner wrote the folder')
    kind = _class_of(mark['class'], model_class)
    network = _rebuilt(kind, content[UNPRUNED], path / RECORD_FILE, handlers)
    _load_weights(network, path / WEIGHTS_FILE)
    _load_generation_config(network, path)
    return network.eval()


def _first_architecture(content: Field) -> Field:
    found = content.get('architectures')
    names = found.items() if found is not None else []
    return names[0] if names else content['architectures']


def _class_of(name: Field, given: type[nn.Module] | None) -> Any:
    """Return the given class, or that of transformers with a name."""
    try:
        import transformers
    except ImportError as error:
        raise missing_package('transformers', __name__) from error
    kind = getattr(transformers, name.text(), None) if given is None else given
    if isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel):
        return kind
    if given is not None:
        raise ConfigError(
            f'model_class of from_pretrained is {describe(given)}; expected a class of networks '
            'of transformers'
        )
    raise ConfigError(
        f'transformers {transformers.__version__} has no class of networks {name.text()!r}, which '
        f'the folder of {name.file!r} names; give the class as model_class='
    )


def _rebuilt(kind: Any, config: Field, record: Path, handlers: Sequence[LayerHandler]) -> Any:
    """Return the network of a config, cut by a record, without weights."""
    cut = NetworkRecord.load(record)
    try:
        text = json.dumps(config.value)
        network: Any = build_empty(kind, read_config(kind.config_class, text))
    except Exception as error:
        raise RecordError(
            f'{kind.__name__} cannot be built from the config in {config.file!r}: '
            f'{type(error).__name__}: {error}'
        ) from error
    return cut.apply(network, (*handlers, *plugin_handlers()))


def _load_weights(network: nn.Module, file: Path) -> None:
    """Give a network its weights. Those that are tied to others need not be in the file."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        weights = load_file(file)
    except (OSError, SafetensorError) as error:
        raise RecordError(
            f'the weights {str(file)!r} cannot be read: {error}; copy the folder again'
        ) from error
    ties = _ties(network)
    try:
        left = network.load_state_dict(weights, strict=False, assign=True)
    except RuntimeError as error:
        raise RecordError(f'{str(file)!r} does not fit the record beside it: {error}') from error
    for names in ties:
        _tie(network, names, weights)
    untied = {name for names in ties if weights.keys() & {*names} for name in names}
    missing = [name for name in left.missing_keys if name not in untied]
    for what, wrong in (('lacks', missing), ('has unknown', left.unexpected_keys)):
        if wrong:
            raise RecordError(
                f'{str(file)!r} {what} weights: {_listed(wrong)}; copy the folder again'
            )


def _listed(names: Sequence[str]) -> str:
    shown = ', '.join(names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f'{shown} and {len(names) - _SHOWN} more'


def _ties(network: nn.Module) -> list[list[str]]:
    """Return the names of each parameter or buffer that has several."""
    found: dict[int, list[str]] = {}
    for name, tensor in (
        *network.named_parameters(remove_duplicate=False),
        *network.named_buffers(remove_duplicate=False),
    ):
        found.setdefault(id(tensor), []).append(name)
    return [names for names in found.values() if len(names) > 1]


def _tie(network: nn.Module, names: Iterable[str], weights: dict[str, Tensor]) -> None:
    """Give all names the tensor that was loaded under one of them."""
    loaded = next((name for name in names if name in weights), None)
    if loaded is None:
        return
    tensor = _owner(network, loaded)
    for name in names:
        owner, local = network.get_submodule(name.rpartition('.')[0]), name.rpartition('.')[2]
        entries = owner._parameters if local in owner._parameters else owner._buffers
        entries[local] = tensor  # type: ignore[assignment]


def _owner(network: nn.Module, name: str) -> Tensor:
    path, _, local = name.rpartition('.')
    tensor = getattr(network.get_submodule(path), local)
    assert isinstance(tensor, Tensor)
    return tensor


def _load_generation_config(network: Any, folder: Path) -> None:
    if (folder / 'generation_config.json').is_file() and hasattr(network, 'generation_config'):
        kind = type(network.generation_config)
        network.generation_config = kind.from_pretrained(folder, local_files_only=True)
