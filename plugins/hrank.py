"""Mask source: the rank of feature maps (HRank; Lin et al., 2020, arXiv 2002.10179)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from easypruner import Budget, Component, Context, MaskSource, hookimpl
from easypruner.base.checks import check_count
from easypruner.graph import ChannelGraph
from easypruner.strategies.measures.activations import (
    Probe,
    collect,
    maker_probes,
    probe_each,
    reader_probes,
)
from easypruner.strategies.measures.units import wide


class HRank(MaskSource):
    """Scores a unit by the average rank of its channels' feature maps over images.

    That is the mean over images t of Rank(o(t)), o the map of one channel (section 3 of the
    paper). Maps are looked at as the layers that read them get them, behind norm and activation;
    each such layer is one of the coupled layers that ``reduction`` combines. Where readers get no
    maps but single numbers or rows, behind a pooling or a flattening, the maps are those that the
    group's batch norms put out, or failing these its convolutions. If there are none at all, a
    number or a row of numbers has rank 1, and 0 if it is zero. Of volumes each slice is a map.

    Larger maps have larger ranks, and the paper ranks each layer by itself, so scores are divided
    by their group's mean unless ``normalization`` says otherwise.

    Args:
        budget: how much may stay.
        batches: of training data; the released code takes 5.
        reduction: over the layers that see a group.
        normalization: across groups.
    """

    def __init__(
        self,
        budget: Budget | None = None,
        batches: int = 5,
        reduction: str = 'mean',
        normalization: str = 'mean',
    ) -> None:
        super().__init__(budget, reduction, normalization)
        self.batches = check_count(batches, 'batches', 'HRank')

    def score(self, graph: ChannelGraph, context: Context) -> dict[str, Tensor]:
        probes = _with_maps(graph, context)
        return collect(graph, context, self.batches, 'HRank', _ranks, probes)


def _with_maps(graph: ChannelGraph, context: Context) -> list[Probe]:
    """Return where to look at each group: the first kind of place where there are maps."""
    places = [*reader_probes(graph), *maker_probes(graph)]
    sides = [
        (probe, float(s[0])) for probe, s in probe_each(graph, context, 1, 'HRank', _side, places)
    ]
    chosen: dict[str, list[Probe]] = {}
    for output, least in ((False, 2), (True, 2), (False, 0)):
        found: dict[str, list[Probe]] = {}
        for probe, side in sides:
            if probe.output == output and side >= least:
                found.setdefault(probe.group, []).append(probe)
        chosen = found | chosen
    return [probe for probes in chosen.values() for probe in probes]


def _side(maps: Tensor) -> Tensor:
    """Return the shorter side of the maps, 1 where they are none."""
    positions = maps.shape[3:]
    return maps.new_full(maps.shape[:2], min(positions[-2:]) if len(positions) > 1 else 1)


def _ranks(maps: Tensor) -> Tensor:
    matrices = maps if maps.dim() > 4 else maps.reshape(*maps.shape[:3], 1, -1)
    return torch.linalg.matrix_rank(wide(matrices))


@hookimpl
def easypruner_components() -> Iterable[type[Component]]:
    return [HRank]
