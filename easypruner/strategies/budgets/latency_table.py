"""Latency tables: the measured time that pruning each group saves of a forward pass."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch import Tensor

from easypruner.base.files import write_json
from easypruner.base.json_fields import Field, read_json
from easypruner.errors import ConfigError, EasyPrunerError, nearest
from easypruner.graph import ChannelGraph, Masks
from easypruner.graph.coupling.cost import count_kept

FORMAT = 'easypruner.latency/1'


@dataclass(frozen=True)
class Savings:
    """The time that pruning one group alone saves.

    Attributes:
        units: the number of units of the whole group.
        kept: the numbers of kept units that were measured, ascending, fewer than all.
        saved: for each of them, the seconds that a pass is shorter.
        spread: for each of them, the median absolute deviation of the seconds.
    """

    units: int
    kept: tuple[int, ...]
    saved: tuple[float, ...]
    spread: tuple[float, ...]

    @cached_property
    def by_units(self) -> npt.NDArray[np.float64]:
        """Seconds saved with 0 to all units kept, interpolated; fewer units never save less."""
        saved = np.maximum.accumulate(np.array([0.0, *reversed(self.saved)]))[::-1]
        return np.interp(np.arange(self.units + 1), [*self.kept, self.units], saved)

    @staticmethod
    def total(groups: Mapping[str, Savings], kept: Mapping[str, int]) -> float:
        """Return the sum of the savings of single groups, each with a number of kept units."""
        return sum(float(groups[name].by_units[units]) for name, units in kept.items())


@dataclass(frozen=True)
class Together:
    """The time that pruning all groups at once saves.

    It is less than the sum of the savings of single groups, because the weights between two
    groups can only be removed once.

    Attributes:
        added: the sums of the savings of single groups, ascending.
        saved: for each sum, the seconds that a pass is shorter when all these groups are pruned.
        spread: for each sum, the median absolute deviation of the seconds.
    """

    added: tuple[float, ...]
    saved: tuple[float, ...]
    spread: tuple[float, ...]

    def of(self, added: float) -> float:
        """Return the seconds saved for a sum, interpolated; a larger sum never saves less."""
        saved = np.maximum.accumulate(np.array([0.0, *self.saved]))
        return float(np.interp(added, [0.0, *self.added], saved))


@dataclass(frozen=True)
class LatencyTable:
    """Predicts the seconds of a forward pass from the number of units that each group keeps.

    The savings of the single groups are added up. :class:`Together` corrects the sum.

    Attributes:
        seconds: the seconds of a pass of the whole network.
        spread: their median absolute deviation.
        repeats: the number of passes that were measured for each number.
        machine: a description of the machine.
        groups: name -> the savings of pruning this group.
        together: the savings of pruning all groups.
    """

    seconds: float
    spread: float
    repeats: int
    machine: Mapping[str, str]
    groups: Mapping[str, Savings]
    together: Together

    def predict(self, graph: ChannelGraph, masks: Mapping[str, Tensor] | None = None) -> float:
        """Return the seconds of a forward pass under ``masks``.

        Raises:
            EasyPrunerError: the table was measured on another network.
            MaskError: the masks are those of another network.
        """
        self.check(graph)
        if masks and not masks.keys() <= graph.groups.keys():
            Masks(masks).check(graph)
        units = count_kept(masks or {}, graph.groups)
        # A group that was cut to a single channel is no longer in the graph.
        kept = dict.fromkeys(self.groups, 1) | dict(zip(graph.groups, units, strict=True))
        added = Savings.total(self.groups, kept)
        return max(self.seconds - self.together.of(added), 0.0)

    def check(self, graph: ChannelGraph) -> None:
        """Raise EasyPrunerError if the table was measured on another network than the graph's."""
        for name in [*graph.groups, *self.groups]:
            if name not in self.groups:
                raise EasyPrunerError(
                    f'the latency table does not have group {name!r}; '
                    f'{nearest(name, self.groups)}; measure a table of this network'
                )
            if name not in graph.groups and not _is_single(graph, name):
                raise EasyPrunerError(
                    f'the latency table has group {name!r}, which this network does not have; '
                    f'{nearest(name, graph.groups)}; measure a table of this network'
                )
            if name in graph.groups and graph.groups[name].size > self.groups[name].units:
                raise EasyPrunerError(
                    f'group {name!r} has {graph.groups[name].size} units, but the latency table '
                    f'has {self.groups[name].units}; measure a table of this network'
                )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the table as JSON, whole or not at all."""
        write_json(path, {'format': FORMAT, **asdict(self)})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> LatencyTable:
        """Read a table.

        Raises:
            ConfigError: the file does not exist.
            EasyPrunerError: it is not a latency table, or is damaged; the message names the field.
        """
        file = Path(path)
        if not file.is_file():
            raise ConfigError(
                f'there is no latency table {str(file)!r}; '
                'write one with easypruner.strategies.budgets.latency.measure_table'
            )
        table = read_json(file)
        if table['format'].text() != FORMAT:
            table['format'].fail(repr(FORMAT))
        return cls(
            seconds=table['seconds'].number(0),
            spread=table['spread'].number(0),
            repeats=table['repeats'].integer(1),
            machine={key: entry.text() for key, entry in table['machine'].entries()},
            groups={name: _read_savings(group) for name, group in table['groups'].entries()},
            together=_read_together(table['together']),
        )


def _is_single(graph: ChannelGraph, group: str) -> bool:
    """Tell whether the weight that a group is named after has a single channel."""
    path, weights = group.partition('#')[0], dict(graph.model.named_parameters())
    weight = weights.get(f'{path}.weight', weights.get(path))
    return weight is not None and 1 in weight.shape[:2]


def _read_savings(group: Field) -> Savings:
    units = group['units'].integer(1)
    kept = tuple(entry.integer(1) for entry in group['kept'].items())
    if any(a >= b for a, b in zip(kept, [*kept[1:], units], strict=False)):
        group['kept'].fail(f'ascending numbers below {units}')
    return Savings(units, kept, *_read_saved(group, len(kept)))


def _read_together(together: Field) -> Together:
    added = tuple(entry.number(0) for entry in together['added'].items())
    if list(added) != sorted(added):
        together['added'].fail('ascending numbers')
    return Together(added, *_read_saved(together, len(added)))


def _read_saved(field: Field, count: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    saved = tuple(entry.number() for entry in field['saved'].items())
    spread = tuple(entry.number(0) for entry in field['spread'].items())
    for name, values in (('saved', saved), ('spread', spread)):
        if len(values) != count:
            field[name].fail(f'{count} numbers')
    return saved, spread
