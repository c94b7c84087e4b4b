"""The architecture record: a cut as readable JSON, by which it is repeated on the original."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, overload

import torch
from torch import Tensor, nn

from easypruner.base.describe import describe
from easypruner.base.files import write_json
from easypruner.base.json_fields import Field, check_hash, read_json, with_hash
from easypruner.base.lazy import LazyDict
from easypruner.base.versions import versions_of
from easypruner.errors import ConfigError, RecordError, nearest
from easypruner.graph.cutting.handlers import LayerHandler, with_torch_layers
from easypruner.graph.cutting.index_ranges import RangeReader, to_ranges
from easypruner.graph.cutting.surgery import cut
from easypruner.graph.cutting.transform import Transform, check_header
from easypruner.graph.pretrained.following import check as check_configs
from easypruner.graph.pretrained.following import configs_of, is_of_config, set_again
from easypruner.graph.recording.config_numbers import attribute_of, numbers_of
from easypruner.graph.recording.inventory import Attributes, Inventory
from easypruner.graph.recording.wrappers import find_cuttable

FORMAT = 1
CUT_KIND = 'easypruner architecture record'


@dataclass(frozen=True, repr=False)
class TensorCut:
    """How one parameter or buffer was cut.

    Attributes:
        before: its shape before the cut.
        kept: dimension -> the indices that stay, ascending.
    """

    before: tuple[int, ...]
    kept: Mapping[int, tuple[int, ...]]

    @property
    def after(self) -> tuple[int, ...]:
        """The shape after the cut."""
        return tuple(
            len(self.kept[dim]) if dim in self.kept else size
            for dim, size in enumerate(self.before)
        )

    def __repr__(self) -> str:
        return f'TensorCut({self.before} -> {self.after})'


def _list_cuts(
    before: Mapping[str, torch.Size], kept: Mapping[tuple[str, int], Tensor]
) -> dict[str, TensorCut]:
    """Return name -> how the tensor was cut, from its shape before and the indices that stay."""
    dims: dict[str, dict[int, tuple[int, ...]]] = {}
    listed = {id(index): tuple(index.tolist()) for index in kept.values()}
    for (name, dim), index in kept.items():
        dims.setdefault(name, {})[dim] = listed[id(index)]
    return {name: TensorCut(tuple(before[name]), cuts) for name, cuts in dims.items()}


@dataclass(frozen=True, repr=False)
class ArchitectureRecord(Transform):
    """The cut that turns the original network into the pruned one. It has no weights.

    Attributes:
        model: the name of the network's class.
        tensors: dotted name of each cut parameter and buffer -> how it was cut.
        groups: name of each group that lost units -> the units that stay, and the number of units
            before the cut.
        attributes: (path of a module, attribute) -> the number, or numbers, to which it was set;
            ``config.hidden_size`` as the attribute is a number of the module's config.
        versions: the versions of EasyPruner and torch, for information.
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
        units: Mapping[str, tuple[tuple[int, ...], int]],
        attributes: Attributes,
    ) -> ArchitectureRecord:
        """Return the record of a cut that is not done yet.

        Args:
            inventory: the inventory of the network.
            kept: (parameter or buffer, dimension) -> the indices that stay.
            units: group -> the units that stay and the number before, for groups that lose units.
            attributes: the attributes to set.
        """
        # Few cuts are looked at, so the lists of indices are made when somebody does.
        tensors = inventory.tensors
        before = {name: tensors[name].shape for name in dict.fromkeys(name for name, _ in kept)}
        return cls(
            model=type(inventory.model).__name__,
            tensors=LazyDict(lambda: _list_cuts(before, kept)),
            groups=units,
            attributes={
                key: value if isinstance(value, int) else tuple(value)
                for key, value in attributes.items()
            },
            versions=versions_of('torch'),
        )

    def __repr__(self) -> str:
        return (
            f'ArchitectureRecord({self.model}: {len(self.groups)} groups, '
            f'{len(self.tensors)} tensors cut)'
        )

    def apply(self, model: nn.Module, handlers: Sequence[LayerHandler]) -> nn.Module:
        """Cut the original network in place, and return it.

        Args:
            model: the original network.
            handlers: those that :func:`easypruner.trace` was given, including those of plugins.

        Raises:
            RecordError: a tensor of the record does not exist in the model, or has another shape.
            CutError: the model is wrapped in DistributedDataParallel.
        """
        inventory = find_cuttable(model)
        self._check(inventory, is_cut=False)
        attributes = {key: self._fit_value(inventory, *key) for key in self.attributes}
        configs = configs_of(model)
        of_configs = {key for key in attributes if is_of_config(inventory.modules, key)}
        cut(
            inventory,
            {
                (name, dim): torch.tensor(indices, dtype=torch.int64)
                for name, entry in self.tensors.items()
                for dim, indices in entry.kept.items()
            },
            with_torch_layers(handlers),
            {key: value for key, value in attributes.items() if key not in of_configs},
        )
        set_again(model, {key: attributes[key] for key in of_configs})
        check_configs(model, self, configs)
        return model

    def check_cut(self, model: nn.Module) -> None:
        """Raise RecordError unless ``model`` has the shapes that this cut leaves."""
        self._check(Inventory(model), is_cut=True)

    def _check(self, inventory: Inventory, is_cut: bool) -> None:
        """Raise RecordError unless the tensors of a network have the shapes before or after it."""
        kind = type(inventory.model).__name__
        for name, entry in self.tensors.items():
            tensor = inventory.tensors.get(name)
            expected = entry.after if is_cut else entry.before
            if tensor is None:
                raise RecordError(
                    f'the architecture record cuts {name!r}, which this {kind} does not have; '
                    + nearest(name, inventory.tensors)
                )
            got = tuple(tensor.shape)
            if got != expected:
                undergone = 'give the record of the cuts that it has undergone'
                advice = undergone if is_cut else _advise_original(got, expected)
                raise RecordError(
                    f'the architecture record expects {name!r} of shape {expected}, but this '
                    f'{kind} has it of shape {got}; {advice}'
                )

    def _fit_value(self, inventory: Inventory, path: str, attribute: str) -> Any:
        """Return the value of an attribute in the type that the attribute has in the model."""
        value = self.attributes[path, attribute]
        module = inventory.modules.get(path)
        present: Any = None if module is None else attribute_of(module, attribute)
        if '.' in attribute and present is None and isinstance(value, int):
            return value  # a number of a config that was not set
        numbers = numbers_of(present)
        wanted = (value,) if isinstance(value, int) else tuple(value)
        if numbers is None or len(numbers) != len(wanted):
            raise RecordError(
                f'the architecture record sets {path}.{attribute} to {value}, but this '
                f'{type(inventory.model).__name__} has no such number there'
            )
        return value if isinstance(value, int) else type(present)(wanted)

    def within(self, path: str) -> ArchitectureRecord:
        """Return the record of the part of the network with a path."""
        if not path:
            return self
        start = f'{path}.'
        return replace(
            self,
            tensors={
                n.removeprefix(start): t for n, t in self.tensors.items() if n.startswith(start)
            },
            attributes={
                (own.removeprefix(path).removeprefix('.'), name): value
                for (own, name), value in self.attributes.items()
                if own == path or own.startswith(start)
            },
        )

    @overload
    def then(self, later: ArchitectureRecord) -> ArchitectureRecord: ...

    @overload
    def then(self, later: Transform) -> Transform | None: ...

    def then(self, later: Transform) -> Transform | None:
        """Return the record of this cut followed by a later one; None for another transform.

        Raises:
            RecordError: the later cut was not made on the network that this cut leaves.
        """
        if not isinstance(later, ArchitectureRecord):
            return None
        tensors = dict(self.tensors)
        for name, entry in later.tensors.items():
            earlier = self.tensors.get(name)
            if earlier is None:
                tensors[name] = entry
                continue
            if earlier.after != entry.before:
                raise RecordError(
                    f'the records do not follow each other: {name!r} has shape {earlier.after} '
                    f'after the first and {entry.before} before the second; give them in the order '
                    'in which the cuts were made'
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
        """Write the record to a JSON file. If that fails, no file is left."""
        write_json(path, self.to_json())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> ArchitectureRecord:
        """Read a record.

        Raises:
            RecordError: there is no such file, or it is damaged or was edited; the message names
                the field.
        """
        return cls.from_json(read_record(path))

    def to_json(self) -> dict[str, Any]:
        attributes: dict[str, dict[str, Any]] = {}
        for (path, attribute), value in self.attributes.items():
            number = value if isinstance(value, int) else list(value)
            attributes.setdefault(path, {})[attribute] = number
        content = {
            'format': FORMAT,
            'kind': CUT_KIND,
            'model': self.model,
            'versions': dict(self.versions),
            'groups': {
                name: {'units': size, 'kept': to_ranges(units)}
                for name, (units, size) in self.groups.items()
            },
            'attributes': attributes,
            'tensors': {
                name: {
                    'before': list(entry.before),
                    'after': list(entry.after),
                    'kept': {str(d): to_ranges(i) for d, i in sorted(entry.kept.items())},
                }
                for name, entry in self.tensors.items()
            },
        }
        return with_hash(content)

    @classmethod
    def from_json(cls, content: Field) -> ArchitectureRecord:
        check_header(content, CUT_KIND, FORMAT)
        ranges = RangeReader()
        record = cls(
            model=content['model'].text(),
            tensors={
                name: _read_tensor(entry, ranges) for name, entry in content['tensors'].entries()
            },
            groups={
                name: _read_group(entry, ranges) for name, entry in content['groups'].entries()
            },
            attributes={
                (path, name): _read_number(value)
                for path, entries in content['attributes'].entries()
                for name, value in entries.entries()
            },
            versions={key: str(entry.value) for key, entry in content['versions'].entries()},
        )
        check_hash(content)
        return record


def _advise_original(got: tuple[int, ...], expected: tuple[int, ...]) -> str:
    advice = 'build the original, unpruned network'
    if len(got) == len(expected) and all(a >= b for a, b in zip(got, expected, strict=True)):
        advice += (
            ', or if it is that, the record is of a later cut: give that of all cuts, '
            'first.then(second)'
        )
    return advice


def record_of(architecture: object, argument: str, owner: str) -> ArchitectureRecord:
    """Return the record that an argument stands for.

    Args:
        architecture: a record, an object with a record under ``.record``, or the path of a file.
        argument: the name of the argument, for messages.
        owner: the function that takes the argument.

    Raises:
        ConfigError: the argument has another type.
        RecordError: as for :meth:`ArchitectureRecord.load`.
    """
    if isinstance(architecture, ArchitectureRecord):
        return architecture
    own = getattr(architecture, 'record', None)
    if isinstance(own, ArchitectureRecord):
        return own
    if not isinstance(architecture, str | os.PathLike):
        raise ConfigError(
            f'{argument} of {owner} is {describe(architecture)}; expected an '
            'ArchitectureRecord, as prune and slim return it, or the path of its file'
        )
    return ArchitectureRecord.load(architecture)


def read_record(path: str | os.PathLike[str]) -> Field:
    """Read the file of a record.

    Raises:
        RecordError: there is no such file, or it is not JSON.
    """
    if not Path(path).is_file():
        raise RecordError(f'there is no architecture record {os.fspath(path)!r}')
    return read_json(path, RecordError)


def _read_tensor(entry: Field, ranges: RangeReader) -> TensorCut:
    before = entry['before'].sizes()
    kept = {}
    for dim, text in entry['kept'].entries():
        if dim not in map(str, range(len(before))):
            text.fail(f'a dimension below {len(before)}, but its name is {dim!r}')
        kept[int(dim)] = ranges.read(text, before[int(dim)])
    result = TensorCut(before, kept)
    if entry['after'].sizes() != result.after:
        entry['after'].fail(f'{list(result.after)}, as kept says')
    return result


def _read_group(entry: Field, ranges: RangeReader) -> tuple[tuple[int, ...], int]:
    size = entry['units'].integer(0)
    return ranges.read(entry['kept'], size), size


def _read_number(value: Field) -> int | tuple[int, ...]:
    return value.sizes() if isinstance(value.value, list) else value.integer(0)
