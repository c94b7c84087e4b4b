"""Repairs: attributes of modules that are set to the widths of axes after a cut."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from easypruner.graph.coupling.axes import Axis
from easypruner.graph.coupling.cost import AxisSizes, AxisTable
from easypruner.graph.coupling.groups import Partition
from easypruner.graph.recording.inventory import Attributes
from easypruner.graph.trial.widths import Widths


@dataclass(frozen=True, eq=False)
class Repair:
    """An attribute of a module that holds the width of an axis, or the widths of several.

    Attributes:
        module: the dotted path of the module.
        attribute: the name of the attribute.
        axes: the axis that each number follows; None for a number that does not change.
        values: the numbers in the full model.
        container: the type of the attribute: int, list or tuple.
    """

    module: str
    attribute: str
    axes: tuple[Axis | None, ...]
    values: tuple[int, ...]
    container: type

    def fill(self, sizes: Sequence[int | None]) -> Any:
        """Return the attribute's value with the given sizes; None leaves a number as it is."""
        numbers = [
            value if size is None else size for size, value in zip(sizes, self.values, strict=True)
        ]
        return numbers[0] if self.container is int else self.container(numbers)


Repairs = Mapping[tuple[str, str], Repair]
"""(path of a module, name of an attribute) -> its repair."""


def join(repairs: Repairs, more: Iterable[Repair]) -> Repairs:
    """Return repairs with more of them, which replace those of the same attributes."""
    return {**repairs, **{(repair.module, repair.attribute): repair for repair in more}}


def attributes_under(repairs: Repairs, widths: Widths) -> Attributes:
    """Return the values of the repaired attributes for the given widths."""
    return {
        key: repair.fill([None if axis is None else widths(axis) for axis in repair.axes])
        for key, repair in repairs.items()
    }


@dataclass(frozen=True)
class AttributeModel:
    """The values of repaired attributes as functions of the kept units.

    Attributes:
        repairs: the repairs.
        numbers: for each repair, the numbers of its axes in ``sizes``.
        sizes: the kept sizes of the axes.
    """

    repairs: Repairs
    numbers: tuple[tuple[int | None, ...], ...]
    sizes: AxisSizes

    @classmethod
    def build(cls, repairs: Repairs, parts: Partition) -> AttributeModel:
        """Number the axes of ``repairs`` and find their sizes for any choice of units."""
        table = AxisTable()
        numbers = tuple(
            tuple(None if axis is None else table.number_of(axis) for axis in repair.axes)
            for repair in repairs.values()
        )
        return cls(repairs, numbers, table.find_sizes(parts))

    def __call__(self, units: Sequence[int]) -> Attributes:
        """Return the values if each group keeps the given number of units."""
        sizes = self.sizes(units).tolist()
        return {
            key: repair.fill([None if number is None else sizes[number] for number in numbers])
            for (key, repair), numbers in zip(self.repairs.items(), self.numbers, strict=True)
        }
