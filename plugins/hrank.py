"""Mask source: the rank of feature maps (HRank; Lin et al., 2020, arXiv 2002.10179)."""

from __future__ import annotations

import torch
from torch import Tensor

from easypruner import Context, hookimpl
from easypruner.graph import ChannelGraph
from easypruner.strategies.measures.activations import (
    Probe,
    mean_at_probes,
    producer_probes,
    reader_probes,
)
from easypruner.strategies.measures.units import widen
from easypruner.strategies.sources.bases import ActivationSource


class HRank(ActivationSource, batches=5, normalization='mean'):
    """Scores a unit by the average rank of its channels' feature maps over images.

    The score is the mean over images t of Rank(o(t)), where o is the map of a channel (section 3
    of the paper). Maps are measured where layers read them, behind norm and activation. If a
    group's readers get single numbers or rows, behind a pooling or a flattening, the maps are the
    outputs of the group's batch norms; without batch norms, those of its convolutions. If there are
    no maps at all, a number or row has rank 1, or 0 if it is zero. Each slice of a volume is a map.

    Maps with more positions have higher ranks, and the paper ranks each layer by itself, so scores
    are divided by the mean of their group unless ``normalization`` is changed.

    Use when:
        The network has large feature maps and little data is available: the paper finds that the
        average rank hardly depends on the images.

    Fails when:
        Maps are small, as in the last stages of a network or behind a pooling: their ranks hardly
        differ. It also fails on transformers, where a channel is a row of tokens. Ranks are slow to
        compute for large maps.

    Values:
        The released code uses 5 batches. The paper gives each layer its own ratio:
        ``budget=dict(type='Ratio', keep=..., scope='layer')``.
    """

    def probes(self, graph: ChannelGraph, context: Context) -> list[Probe]:
        """Return the first kind of probes of each group that sees maps."""
        candidates = [*reader_probes(graph), *producer_probes(graph)]
        sides = [
            (probe, float(side[0]))
            for probe, side in mean_at_probes(graph, context, 1, 'HRank', _shorter_side, candidates)
        ]
        chosen: dict[str, list[Probe]] = {}
        for output, least in ((False, 2), (True, 2), (False, 0)):
            found: dict[str, list[Probe]] = {}
            for probe, side in sides:
                if probe.output == output and side >= least:
                    found.setdefault(probe.group, []).append(probe)
            chosen = found | chosen
        return [probe for probes in chosen.values() for probe in probes]

    def measure(self, maps: Tensor) -> Tensor:
        matrices = maps if maps.dim() > 4 else maps.reshape(*maps.shape[:3], 1, -1)
        return torch.linalg.matrix_rank(widen(matrices))


def _shorter_side(maps: Tensor) -> Tensor:
    """Return the shorter side of the maps; 1 if they are single numbers or rows."""
    positions = maps.shape[3:]
    return maps.new_full(maps.shape[:2], min(positions[-2:]) if len(positions) > 1 else 1)


easypruner_components = hookimpl(lambda: [HRank])
