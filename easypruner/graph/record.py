"""The architecture record: what was cut, as readable JSON from which the shape is rebuilt."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from easypruner.contracts import LayerHandler
from easypruner.errors import RecordError, nearest
from easypruner.files import write_json
from easypruner.graph.attributes import Attributes
from easypruner.graph.handlers import known_handlers
from easypruner.graph.inventory import Inventory
from easypruner.graph.surgery import cut
from easypruner.graph.wrappers import cuttable

FORMAT = 1
_RANGES = re.compile(r'\d+(-\d+)?(,\d+(-\d+)?)*')


@dataclass(frozen=True)
class TensorCut:
    """How one parameter or buffer was cut.

    Attributes:
        before: its original shape.
        kept: dimension -> the original indices that stay, ascending.
    """

    before: tuple[int, ...]
    kept: Mapping[int, tuple[int, ...]]

    @property
    def after(self) -> tuple[int, ...]:
        """The shape that remains."""
        return tuple(
            len(self.kept[dim]) if dim in self.kept else size
            for dim, size in enumerate(self.before)
        )


@dataclass(frozen=True)
class ArchitectureRecord:
    """What turns the original network into the pruned one, weights apart.

    Attributes:
        model: class name of the network.
        tensors: dotted name of each cut parameter and buffer -> how it was cut.
        groups: name of each group that lost units -> the units kept and their number before.
        attributes: (module path, attribute) -> the number, or numbers, it was set to.
        versions: of EasyPruner and torch, for the reader.
    """

    model: str
    tensors: Mapping[str, TensorCut]
    groups: Mapping[str, tuple[tuple[int, ...], int]] = field(default_factory=dict)
    attributes: Mapping[tuple[str, str], int | tuple[int, ...]] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        inventory: Inventory,
        kept: Mapping[tuple[str, int], Tensor],
        masks: Mapping[str, Tensor],
        attributes: Attributes,
    ) -> ArchitectureRecord:
        """Return the record of a cut that the model has not undergone yet."""
        from easypruner import __version__

        dims: dict[str, dict[int, tuple[int, ...]]] = {}
        listed = {id(index): tuple(index.tolist()) for index in kept.values()}
        for (name, dim), index in kept.items():
            dims.setdefault(name, {})[dim] = listed[id(index)]
        return cls(
            model=type(inventory.model).__name__,
            tensors={
                name: TensorCut(tuple(inventory.tensors[name].shape), cuts)
                for name, cuts in dims.items()
            },
            groups={
                name: (tuple(mask.nonzero().flatten().tolist()), mask.numel())
                for name, mask in masks.items()
                if not bool(mask.all())
            },
            attributes={
                place: value if isinstance(value, int) else tuple(value)
                for place, value in attributes.items()
            },
            versions={'easypruner': __version__, 'torch': torch.__version__},
        )

    def apply(self, model: nn.Module, handlers: Sequence[LayerHandler] = ()) -> None:
        """Cut ``model``, which has its original shapes, in place.

        Raises:
            RecordError: the model lacks a tensor of the record, or has it in another shape.
            CutError: the model is wrapped in DistributedDataParallel.
        """
        model = cuttable(model)
        inventory = Inventory(model)
        for name, entry in self.tensors.items():
            tensor = inventory.tensors.get(name)
            if tensor is None:
                raise RecordError(
                    f'the architecture record cuts {name!r}, which this '
                    f'{type(model).__name__} does not have; {nearest(name, inventory.tensors)}'
                )
            if tuple(tensor.shape) != entry.before:
                raise RecordError(
                    f'the architecture record expects {name!r} of shape {entry.before}, but this '
                    f'{type(model).__name__} has it of shape {tuple(tensor.shape)}; '
                    'build the original, unpruned network'
                )
        cut(
            inventory,
            {
                (name, dim): torch.tensor(indices, dtype=torch.int64)
                for name, entry in self.tensors.items()
                for dim, indices in entry.kept.items()
            },
            known_handlers(handlers),
            {place: self._fitted(model, *place) for place in self.attributes},
        )

    def _fitted(self, model: nn.Module, path: str, attribute: str) -> Any:
        """Return an attribute's value in the type that the model has it in."""
        value = self.attributes[path, attribute]
        modules = dict(model.named_modules())
        present = vars(modules[path]).get(attribute) if path in modules else None
        numbers = [present] if type(present) is int else present
        wanted = [value] if isinstance(value, int) else list(value)
        fits = isinstance(numbers, list | tuple) and len(numbers) == len(wanted)
        if not fits or not all(type(number) is int for number in numbers or ()):
            raise RecordError(
                f'the architecture record sets {path}.{attribute} to {value}, but this '
                f'{type(model).__name__} has no such number there'
            )
        return value if isinstance(present, int) else type(numbers)(wanted)  # type: ignore[misc]

    def then(self, later: ArchitectureRecord) -> ArchitectureRecord:
        """Return the record of this cut followed by a ``later`` one.

        Raises:
            RecordError: ``later`` was not made on a network of this record's shapes.
        """
        tensors = dict(self.tensors)
        for name, entry in later.tensors.items():
            earlier = self.tensors.get(name)
            if earlier is None:
                tensors[name] = entry
                continue
            if earlier.after != entry.before:
                raise RecordError(
                    f'the records do not follow each other: {name!r} is of shape '
                    f'{earlier.after} after the first and {entry.before} before the second'
                )
            kept = dict(earlier.kept)
            for dim, indices in entry.kept.items():
                start = earlier.kept.get(dim)
                kept[dim] = indices if start is None else tuple(start[i] for i in indices)
            tensors[name] = TensorCut(earlier.before, kept)
        groups = dict(self.groups)
        for name, (units, size) in later.groups.items():
            first, before = groups.get(name, ((), -1))
            composes = len(first) == size
            groups[name] = (tuple(first[i] for i in units), before) if composes else (units, size)
        attributes = {**self.attributes, **later.attributes}
        return ArchitectureRecord(self.model, tensors, groups, attributes, later.versions)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the record as JSON, whole or not at all."""
        content = self._content()
        write_json(path, {**content, 'hash': _hash(content)})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> ArchitectureRecord:
        """Read a record.

        Raises:
            RecordError: no such file, or a damaged, edited or foreign one; the message names the
                field.
        """
        file = Path(path)
        try:
            content = json.loads(file.read_text(encoding='utf-8'))
        except FileNotFoundError:
            raise RecordError(f'there is no architecture record {str(file)!r}') from None
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise RecordError(
                f'{str(file)!r} cannot be read as an architecture record: {error}'
            ) from error
        return _Reader(str(file)).record(content)

    def _content(self) -> dict[str, Any]:
        return {
            'format': FORMAT,
            'kind': 'easypruner architecture record',
            'model': self.model,
            'versions': dict(self.versions),
            'groups': {
                name: {'units': size, 'kept': _to_ranges(units)}
                for name, (units, size) in self.groups.items()
            },
            'attributes': self._nested_attributes(),
            'tensors': {
                name: {
                    'before': list(entry.before),
                    'after': list(entry.after),
                    'kept': {str(d): _to_ranges(i) for d, i in sorted(entry.kept.items())},
                }
                for name, entry in self.tensors.items()
            },
        }

    def _nested_attributes(self) -> dict[str, dict[str, Any]]:
        nested: dict[str, dict[str, Any]] = {}
        for (path, attribute), value in self.attributes.items():
            number = value if isinstance(value, int) else list(value)
            nested.setdefault(path, {})[attribute] = number
        return nested


def load_pruned(
    model_factory: Callable[[], nn.Module],
    checkpoint: str | os.PathLike[str],
    architecture: ArchitectureRecord | str | os.PathLike[str],
    handlers: Sequence[LayerHandler] = (),
) -> nn.Module:
    """Rebuild a pruned network: original shape, cut by the record, weights loaded strictly.

    Args:
        model_factory: builds the original network.
        checkpoint: a file of the pruned network's state dict, or of a dict that holds it under
            ``'state_dict'``.
        architecture: the record, or the path of its file.
        handlers: as given to :func:`easypruner.trace`.

    Raises:
        RecordError: the record or the checkpoint does not fit the network.
    """
    record = (
        architecture
        if isinstance(architecture, ArchitectureRecord)
        else ArchitectureRecord.load(architecture)
    )
    model = model_factory()
    record.apply(model, handlers)
    state = torch.load(checkpoint, map_location='cpu', weights_only=True)
    state = state.get('state_dict', state) if isinstance(state, dict) else state
    try:
        model.load_state_dict(state, strict=True)
    except (RuntimeError, TypeError) as error:
        raise RecordError(
            f'the checkpoint {os.fspath(checkpoint)!r} does not fit the network that the '
            f'architecture record describes: {error}'
        ) from error
    return model


def _to_ranges(indices: Sequence[int]) -> str:
    """Write ascending integers as ranges.

    >>> _to_ranges([0, 1, 2, 5, 7, 8])
    '0-2,5,7-8'
    """
    parts: list[list[int]] = []
    for i in indices:
        if parts and parts[-1][1] == i - 1:
            parts[-1][1] = i
        else:
            parts.append([i, i])
    return ','.join(str(a) if a == b else f'{a}-{b}' for a, b in parts)


def _from_ranges(text: str, limit: int) -> tuple[int, ...]:
    """Read what :func:`_to_ranges` wrote; ValueError unless ascending and below ``limit``."""
    if not _RANGES.fullmatch(text):
        raise ValueError('expected ranges such as "0-3,7"')
    indices: list[int] = []
    for part in text.split(','):
        first, _, last = part.partition('-')
        start, stop = int(first), int(last or first)
        if stop < start or stop >= limit or (indices and start <= indices[-1]):
            raise ValueError(f'expected ascending indices below {limit}')
        indices.extend(range(start, stop + 1))
    return tuple(indices)


def _hash(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, separators=(',', ':'))
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class _Reader:
    """Turns the JSON of a file from outside into a record, and names the field that is wrong."""

    file: str

    def record(self, content: Any) -> ArchitectureRecord:
        top = self._dict(content, 'the file')
        if top.get('kind') != 'easypruner architecture record':
            raise self._error('kind', 'expected "easypruner architecture record"')
        if top.get('format') != FORMAT:
            raise self._error('format', f'met {top.get("format")!r}, this version reads {FORMAT}')
        body = {key: value for key, value in top.items() if key != 'hash'}
        tensors = self._dict(top.get('tensors'), 'tensors')
        groups = self._dict(top.get('groups'), 'groups')
        versions = self._dict(top.get('versions'), 'versions')
        if not isinstance(top.get('model'), str):
            raise self._error('model', 'expected a class name')
        record = ArchitectureRecord(
            model=top['model'],
            tensors={name: self._tensor(name, entry) for name, entry in tensors.items()},
            groups={name: self._group(name, entry) for name, entry in groups.items()},
            attributes=self._attributes(top.get('attributes')),
            versions={str(key): str(value) for key, value in versions.items()},
        )
        if top.get('hash') != _hash(body):
            raise self._error(
                'hash', 'it does not match the content: the file was edited or damaged'
            )
        return record

    def _tensor(self, name: str, entry: Any) -> TensorCut:
        place = f'tensors[{name!r}]'
        entry = self._dict(entry, place)
        before = self._shape(entry.get('before'), f'{place}.before')
        kept = {}
        for dim, text in self._dict(entry.get('kept'), f'{place}.kept').items():
            if not dim.isdigit() or int(dim) >= len(before):
                raise self._error(f'{place}.kept', f'there is no dimension {dim!r}')
            kept[int(dim)] = self._indices(text, before[int(dim)], f'{place}.kept[{dim!r}]')
        result = TensorCut(before, kept)
        if self._shape(entry.get('after'), f'{place}.after') != result.after:
            raise self._error(f'{place}.after', f'expected {list(result.after)}, as kept says')
        return result

    def _attributes(self, content: Any) -> dict[tuple[str, str], int | tuple[int, ...]]:
        attributes: dict[tuple[str, str], int | tuple[int, ...]] = {}
        for path, entries in self._dict(content, 'attributes').items():
            for name, value in self._dict(entries, f'attributes[{path!r}]').items():
                place = f'attributes[{path!r}][{name!r}]'
                numbers = self._shape(value if isinstance(value, list) else [value], place)
                attributes[path, name] = numbers if isinstance(value, list) else numbers[0]
        return attributes

    def _group(self, name: str, entry: Any) -> tuple[tuple[int, ...], int]:
        place = f'groups[{name!r}]'
        entry = self._dict(entry, place)
        (size,) = self._shape([entry.get('units')], f'{place}.units')
        return self._indices(entry.get('kept'), size, f'{place}.kept'), size

    def _indices(self, text: Any, limit: int, place: str) -> tuple[int, ...]:
        try:
            return _from_ranges(text, limit)
        except (ValueError, TypeError) as error:
            raise self._error(place, str(error)) from error

    def _shape(self, value: Any, place: str) -> tuple[int, ...]:
        if not isinstance(value, list) or not all(_is_size(size) for size in value):
            raise self._error(place, 'expected sizes, whole numbers of at least 0')
        return tuple(value)

    def _dict(self, value: Any, place: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise self._error(place, f'expected an object, met {type(value).__name__}')
        return value

    def _error(self, place: str, text: str) -> RecordError:
        return RecordError(f'the architecture record {self.file!r} is not valid at {place}: {text}')


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
