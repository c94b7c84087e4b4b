"""The architecture record: what was cut, as readable JSON from which the shape is rebuilt."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from easypruner.base.files import write_json
from easypruner.base.versions import versions_of
from easypruner.errors import ConfigError, RecordError, nearest
from easypruner.graph.cutting.handlers import with_torch_layers
from easypruner.graph.cutting.layer_handler import LayerHandler
from easypruner.graph.cutting.record_fields import Fields, content_hash, to_ranges
from easypruner.graph.cutting.surgery import cut
from easypruner.graph.recording.attributes import Attributes
from easypruner.graph.recording.inventory import Inventory
from easypruner.graph.recording.wrappers import cuttable

FORMAT = 1
Shape = tuple[int, ...]


@dataclass(frozen=True, repr=False)
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

    def __repr__(self) -> str:
        return f'TensorCut({self.before} -> {self.after})'


@dataclass(frozen=True, repr=False)
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
            versions=versions_of('torch'),
        )

    def __repr__(self) -> str:
        return (
            f'ArchitectureRecord({self.model}: {len(self.groups)} groups, '
            f'{len(self.tensors)} tensors cut)'
        )

    def apply(self, model: nn.Module, handlers: Sequence[LayerHandler]) -> None:
        """Cut ``model``, which has its original shapes, in place.

        Args:
            model: the original network.
            handlers: that :func:`easypruner.trace` was given, those of plugins among them.

        Raises:
            RecordError: the model lacks a tensor of the record, or has it in another shape.
            CutError: the model is wrapped in DistributedDataParallel.
        """
        model = cuttable(model)
        inventory = Inventory(model)
        self._check(inventory, lambda entry: entry.before, _not_the_original)
        cut(
            inventory,
            {
                (name, dim): torch.tensor(indices, dtype=torch.int64)
                for name, entry in self.tensors.items()
                for dim, indices in entry.kept.items()
            },
            with_torch_layers(handlers),
            {place: self._fitted(model, *place) for place in self.attributes},
        )

    def check_cut(self, model: nn.Module) -> None:
        """Raise RecordError unless ``model`` has the shapes that this cut leaves."""
        self._check(
            Inventory(model),
            lambda entry: entry.after,
            lambda met, expected: 'give the record of the cuts that it has undergone',
        )

    def _check(
        self,
        inventory: Inventory,
        shape: Callable[[TensorCut], Shape],
        advice: Callable[[Shape, Shape], str],
    ) -> None:
        kind = type(inventory.model).__name__
        for name, entry in self.tensors.items():
            tensor, expected = inventory.tensors.get(name), shape(entry)
            if tensor is None:
                raise RecordError(
                    f'the architecture record cuts {name!r}, which this {kind} does not have; '
                    + nearest(name, inventory.tensors)
                )
            met = tuple(tensor.shape)
            if met != expected:
                raise RecordError(
                    f'the architecture record expects {name!r} of shape {expected}, but this '
                    f'{kind} has it of shape {met}; {advice(met, expected)}'
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
        write_json(path, {**content, 'hash': content_hash(content)})

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
                name: {'units': size, 'kept': to_ranges(units)}
                for name, (units, size) in self.groups.items()
            },
            'attributes': self._nested_attributes(),
            'tensors': {
                name: {
                    'before': list(entry.before),
                    'after': list(entry.after),
                    'kept': {str(d): to_ranges(i) for d, i in sorted(entry.kept.items())},
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


class Recorded(Protocol):
    """What holds a record, as :func:`easypruner.slim` returns it."""

    @property
    def record(self) -> ArchitectureRecord: ...


def load_pruned(
    model_factory: Callable[[], nn.Module],
    checkpoint: str | os.PathLike[str] | Mapping[str, Any],
    architecture: ArchitectureRecord | Recorded | str | os.PathLike[str],
    handlers: Sequence[LayerHandler] = (),
) -> nn.Module:
    """Rebuild a pruned network: original shape, cut by the record, weights loaded strictly.

    Args:
        model_factory: builds the original network.
        checkpoint: the state dict of the pruned network, or a dict that holds it under
            ``'state_dict'``; or a file of one of these.
        architecture: the record, the path of its file, or what :func:`easypruner.slim` returned.
            Of a network that was cut several times it is that of all cuts, in their order:
            ``first.then(second)``.
        handlers: as given to :func:`easypruner.trace`.

    Raises:
        ConfigError: an argument that is none of these.
        RecordError: the record or the checkpoint is missing, or does not fit the network.
    """
    if isinstance(model_factory, nn.Module) or not callable(model_factory):
        raise ConfigError(
            f'model_factory of load_pruned is a {type(model_factory).__name__}; expected what '
            'builds the original network: its class, or a function without arguments'
        )
    record = record_of(architecture, 'architecture', 'load_pruned')
    state, where = _state(checkpoint)
    model = model_factory()
    record.apply(model, handlers)
    try:
        model.load_state_dict(state, strict=True)
    except (RuntimeError, TypeError) as error:
        raise RecordError(
            f'{where} does not fit the network that the architecture record describes: {error}'
        ) from error
    return model


def record_of(architecture: object, argument: str, owner: str) -> ArchitectureRecord:
    """Return a record: itself, the one that an object has under ``.record``, or that of a file.

    Raises:
        ConfigError: there is none.
        RecordError: as for :meth:`ArchitectureRecord.load`.
    """
    if isinstance(architecture, ArchitectureRecord):
        return architecture
    held = getattr(architecture, 'record', None)
    if isinstance(held, ArchitectureRecord):
        return held
    if not isinstance(architecture, str | os.PathLike):
        raise ConfigError(
            f'{argument} of {owner} is a {type(architecture).__name__}; expected an '
            'ArchitectureRecord, as prune and slim return it, or the path of its file'
        )
    return ArchitectureRecord.load(architecture)


def _state(checkpoint: Any) -> tuple[Any, str]:
    """Return a state dict and what to call it in messages."""
    content, where = checkpoint, 'the state dict'
    if isinstance(checkpoint, str | os.PathLike):
        where = f'the checkpoint {os.fspath(checkpoint)!r}'
        try:
            content = torch.load(checkpoint, map_location='cpu', weights_only=True)
        except FileNotFoundError:
            raise RecordError(f'there is no checkpoint {os.fspath(checkpoint)!r}') from None
        except Exception as error:
            raise RecordError(
                f'{where} cannot be read as plain weights: '
                f'{(str(error) or type(error).__name__).splitlines()[0]}; expected a state dict '
                'saved by torch.save'
            ) from error
    if not isinstance(content, Mapping):
        raise ConfigError(
            f'{where} of load_pruned is a {type(content).__name__}; expected a state dict (name -> '
            'tensor), or the path of a file that holds one'
        )
    return content.get('state_dict', content), where


def _not_the_original(met: Shape, expected: Shape) -> str:
    advice = 'build the original, unpruned network'
    if len(met) == len(expected) and all(a >= b for a, b in zip(met, expected, strict=True)):
        advice += (
            ', or if it is that, the record is of a later cut: give that of all cuts, '
            'first.then(second)'
        )
    return advice


class _Reader(Fields):
    """Turns the JSON of a file from outside into a record."""

    def record(self, content: Any) -> ArchitectureRecord:
        top = self.mapping(content, 'the file')
        if top.get('kind') != 'easypruner architecture record':
            raise self.error('kind', 'expected "easypruner architecture record"')
        if top.get('format') != FORMAT:
            raise self.error('format', f'met {top.get("format")!r}, this version reads {FORMAT}')
        body = {key: value for key, value in top.items() if key != 'hash'}
        tensors = self.mapping(top.get('tensors'), 'tensors')
        groups = self.mapping(top.get('groups'), 'groups')
        versions = self.mapping(top.get('versions'), 'versions')
        if not isinstance(top.get('model'), str):
            raise self.error('model', 'expected a class name')
        record = ArchitectureRecord(
            model=top['model'],
            tensors={name: self._tensor(name, entry) for name, entry in tensors.items()},
            groups={name: self._group(name, entry) for name, entry in groups.items()},
            attributes=self._attributes(top.get('attributes')),
            versions={str(key): str(value) for key, value in versions.items()},
        )
        if top.get('hash') != content_hash(body):
            raise self.error(
                'hash', 'it does not match the content: the file was edited or damaged'
            )
        return record

    def _tensor(self, name: str, entry: Any) -> TensorCut:
        place = f'tensors[{name!r}]'
        entry = self.mapping(entry, place)
        before = self.shape(entry.get('before'), f'{place}.before')
        kept = {}
        for dim, text in self.mapping(entry.get('kept'), f'{place}.kept').items():
            if not dim.isdigit() or int(dim) >= len(before):
                raise self.error(f'{place}.kept', f'there is no dimension {dim!r}')
            kept[int(dim)] = self.indices(text, before[int(dim)], f'{place}.kept[{dim!r}]')
        result = TensorCut(before, kept)
        if self.shape(entry.get('after'), f'{place}.after') != result.after:
            raise self.error(f'{place}.after', f'expected {list(result.after)}, as kept says')
        return result

    def _attributes(self, content: Any) -> dict[tuple[str, str], int | tuple[int, ...]]:
        attributes: dict[tuple[str, str], int | tuple[int, ...]] = {}
        for path, entries in self.mapping(content, 'attributes').items():
            for name, value in self.mapping(entries, f'attributes[{path!r}]').items():
                place = f'attributes[{path!r}][{name!r}]'
                numbers = self.shape(value if isinstance(value, list) else [value], place)
                attributes[path, name] = numbers if isinstance(value, list) else numbers[0]
        return attributes

    def _group(self, name: str, entry: Any) -> tuple[tuple[int, ...], int]:
        place = f'groups[{name!r}]'
        entry = self.mapping(entry, place)
        (size,) = self.shape([entry.get('units')], f'{place}.units')
        return self.indices(entry.get('kept'), size, f'{place}.kept'), size
