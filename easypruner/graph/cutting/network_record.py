"""The network record: the transforms that make the network of a run out of the original one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import nn

from easypruner.base.describe import describe
from easypruner.base.files import write_json
from easypruner.base.json_fields import check_hash, with_hash
from easypruner.checkpoints.files import load_plain
from easypruner.errors import ConfigError, RecordError, UnknownTransformError, nearest
from easypruner.graph.cutting.handlers import LayerHandler
from easypruner.graph.cutting.record import CUT_KIND, ArchitectureRecord, read_record, record_of
from easypruner.graph.cutting.transform import Transform, check_header

FORMAT = 1
KIND = 'easypruner network record'


@dataclass(frozen=True)
class NetworkRecord:
    """The transforms that make a network out of the original one, in order.

    If the only transform is a cut, the file of the record is that of the architecture record.
    """

    transforms: tuple[Transform, ...] = ()

    def then(self, later: Transform) -> NetworkRecord:
        """Return the record with one more transform, which is joined with the last one if possible.

        Raises:
            RecordError: ``later`` was not made on the network that these transforms leave.
        """
        joined = self.transforms[-1].then(later) if self.transforms else None
        if joined is not None:
            return NetworkRecord((*self.transforms[:-1], joined))
        return NetworkRecord((*self.transforms, later))

    def apply(self, model: nn.Module, handlers: Sequence[LayerHandler]) -> nn.Module:
        """Rebuild the network out of the original one, in place if its transforms can do that.

        Raises:
            RecordError: ``model`` is not the original.
        """
        for transform in self.transforms:
            model = transform.apply(model, handlers)
        return model

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the record to a JSON file. If that fails, no file is left."""
        if len(self.transforms) == 1 and isinstance(self.transforms[0], ArchitectureRecord):
            self.transforms[0].save(path)
            return
        content = {
            'format': FORMAT,
            'kind': KIND,
            'transforms': [
                {'type': type(transform).__name__, 'content': transform.to_json()}
                for transform in self.transforms
            ],
        }
        write_json(path, with_hash(content))

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], transforms: Iterable[type[Transform]] = ()
    ) -> NetworkRecord:
        """Read the record of a network, or of a cut alone.

        Args:
            path: the path of its file.
            transforms: the classes of transforms that it may have, besides ArchitectureRecord.

        Raises:
            RecordError: there is no such file, it is damaged or was edited, or it has a transform
                of another class.
        """
        content = read_record(path)
        if content['kind'].value == CUT_KIND:
            return cls((ArchitectureRecord.from_json(content),))
        if content['kind'].value != KIND:
            content['kind'].fail(f'{CUT_KIND!r} or {KIND!r}')
        check_header(content, KIND, FORMAT)
        check_hash(content)
        kinds: tuple[type[Transform], ...] = (ArchitectureRecord, *transforms)
        known = {kind.__name__: kind for kind in kinds}
        found = []
        for entry in content['transforms'].items():
            name = entry['type'].text()
            if name not in known:
                raise UnknownTransformError(
                    f'{os.fspath(path)!r} has a transform {name!r}, which no loaded plugin '
                    f'defines; {nearest(name, known)}. Load its plugin first, for example with '
                    "easypruner.plugins.load_plugins(['my_plugins']), or with --plugins my_plugins"
                )
            found.append(known[name].from_json(entry['content']))
        return cls(tuple(found))


class Recorded(Protocol):
    """An object with a record, such as the one that :func:`easypruner.slim` returns."""

    @property
    def record(self) -> ArchitectureRecord: ...


def load_pruned(
    model_factory: Callable[[], nn.Module],
    checkpoint: str | os.PathLike[str] | Mapping[str, Any],
    architecture: NetworkRecord | ArchitectureRecord | Recorded | str | os.PathLike[str],
    handlers: Sequence[LayerHandler] = (),
    transforms: Iterable[type[Transform]] = (),
) -> nn.Module:
    """Rebuild a pruned network: build the original, cut it by the record, and load the weights.

    Args:
        model_factory: a function that builds the original network.
        checkpoint: the state dict of the pruned network, or a dict that has it under
            ``'state_dict'``, or a file of one of these.
        architecture: the record, the path of its file, or what :func:`easypruner.slim` returned.
            If the network was cut several times, this is the record of all cuts in their order:
            ``first.then(second)``.
        handlers: as given to :func:`easypruner.trace`.
        transforms: the classes of transforms that the record may have, besides cuts.
            :func:`easypruner.load_pruned` adds those of all loaded plugins.

    Raises:
        ConfigError: an argument has another type.
        RecordError: the record or the checkpoint does not exist, or does not fit the network.
    """
    if isinstance(model_factory, nn.Module) or not callable(model_factory):
        raise ConfigError(
            f'model_factory of load_pruned is {describe(model_factory)}; expected a class or '
            'function without arguments that builds the original network'
        )
    record = _find_record(architecture, transforms)
    state, where = _load_state(checkpoint)
    model = record.apply(model_factory(), handlers)
    try:
        model.load_state_dict(state, strict=True)
    except (RuntimeError, TypeError) as error:
        raise RecordError(
            f'{where} does not fit the network that the architecture record describes: {error}'
        ) from error
    return model


def _find_record(architecture: object, transforms: Iterable[type[Transform]]) -> NetworkRecord:
    if isinstance(architecture, NetworkRecord):
        return architecture
    if isinstance(architecture, str | os.PathLike):
        return NetworkRecord.load(architecture, transforms)
    return NetworkRecord((record_of(architecture, 'architecture', 'load_pruned'),))


def _load_state(checkpoint: Any) -> tuple[Any, str]:
    """Return a state dict, and how to call it in messages."""
    content, where = checkpoint, 'the state dict'
    if isinstance(checkpoint, str | os.PathLike):
        where = f'the checkpoint {os.fspath(checkpoint)!r}'
        content = load_plain(checkpoint, RecordError)
    if not isinstance(content, Mapping):
        raise ConfigError(
            f'{where} of load_pruned is {describe(content)}; expected a state dict (name -> '
            'tensor), or the path of a file with one'
        )
    return content.get('state_dict', content), where
