"""What the page of a run shows beside its table, saved as details.json in its work directory."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from easypruner.base.files import write_json
from easypruner.base.json_fields import Field, read_json

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from easypruner.report.scales import LayerChannels, Scales

DETAILS = 'details.json'
_BINS = 40
_SMALLEST = 1e-9
_SIDES = ('before', 'after')
_KINDS = ('kept', 'removed')


@dataclass(frozen=True)
class LayerWidth:
    """The numbers of kept and removed output channels of a layer."""

    name: str
    kept: int
    removed: int


@dataclass(frozen=True)
class FrozenChannels:
    """The channels that are frozen for one reason, and a module of them."""

    reason: str
    channels: int
    example: str


@dataclass(frozen=True)
class ScaleCounts:
    """Histograms of the magnitudes of batch-norm scales, before and after the sparsity stage.

    Attributes:
        edges: the edges of the bins. A scale of 0 is in the first bin.
        before_kept: the kept channels in each bin before the stage.
        before_removed: the removed channels in each bin before it.
        after_kept: the kept channels after it.
        after_removed: the removed channels after it.
    """

    edges: tuple[float, ...]
    before_kept: tuple[int, ...]
    before_removed: tuple[int, ...]
    after_kept: tuple[int, ...]
    after_removed: tuple[int, ...]

    @classmethod
    def of(cls, before: Scales, after: Scales) -> ScaleCounts:
        """Count the scales in bins of equal width on a logarithmic axis."""
        sides = dict(zip(_SIDES, (before, after), strict=True))
        parts = {
            f'{side}_{kind}': getattr(scales, kind)
            for side, scales in sides.items()
            for kind in _KINDS
        }
        edges = _edges(np.concatenate(list(parts.values())))
        counts = {name: _count(values, edges) for name, values in parts.items()}
        return cls(edges=tuple(edges.tolist()), **counts)


@dataclass(frozen=True)
class RunDetails:
    """What the page of a run shows beside its table.

    Attributes:
        layers: the channels of each layer, in the order in which the model runs them.
        scales: the scales of batch norms; None if they are not known.
        frozen: the frozen channels by reason, most channels first.
    """

    layers: tuple[LayerWidth, ...] = ()
    scales: ScaleCounts | None = None
    frozen: tuple[FrozenChannels, ...] = ()

    @classmethod
    def of(
        cls,
        layers: Sequence[LayerChannels],
        scales: tuple[Scales, Scales] | None,
        frozen: tuple[FrozenChannels, ...],
    ) -> RunDetails:
        """Return the details of what the stage Report has found."""
        widths = tuple(LayerWidth(x.name, x.kept, x.removed) for x in layers)
        return cls(widths, ScaleCounts.of(*scales) if scales else None, frozen)

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write details.json into a work directory atomically, and return its path."""
        path = Path(folder) / DETAILS
        write_json(path, dataclasses.asdict(self))
        return path

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> RunDetails:
        """Read details.json in a work directory; a run without it has no details.

        Raises:
            EasyPrunerError: the file is damaged.
        """
        path = Path(folder) / DETAILS
        if not path.is_file():
            return cls()
        content = read_json(path)
        scales = content.get('scales')
        return cls(
            layers=tuple(
                LayerWidth(x['name'].text(), x['kept'].integer(0), x['removed'].integer(0))
                for x in content['layers'].items()
            ),
            scales=_read_scales(scales) if scales else None,
            frozen=tuple(
                FrozenChannels(x['reason'].text(), x['channels'].integer(0), x['example'].text())
                for x in content['frozen'].items()
            ),
        )


def _read_scales(scales: Field) -> ScaleCounts:
    edges = tuple(edge.number(0) for edge in scales['edges'].items())
    counts = {}
    for name in (f'{side}_{kind}' for side in _SIDES for kind in _KINDS):
        counts[name] = tuple(count.integer(0) for count in scales[name].items())
        if len(counts[name]) != len(edges) - 1:
            scales[name].fail(f'{len(edges) - 1} counts, one for each bin')
    return ScaleCounts(edges, **counts)


def _edges(values: NDArray[np.float64]) -> NDArray[np.float64]:
    smallest = max(float(values.min(initial=1.0)), _SMALLEST)
    largest = max(float(values.max(initial=0.0)), 10 * smallest)
    return np.geomspace(smallest, largest, _BINS + 1)


def _count(values: NDArray[np.float64], edges: NDArray[np.float64]) -> tuple[int, ...]:
    inside = np.clip(values, edges[0], edges[-1])
    return tuple(int(count) for count in np.histogram(inside, edges)[0])
