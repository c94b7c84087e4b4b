"""Mask source: the share of activations that are not zero (Hu et al., 2016, arXiv 1607.03250)."""

from __future__ import annotations

from torch import Tensor

from easypruner import hookimpl
from easypruner.strategies.sources.bases import ActivationSource


class APoZ(ActivationSource):
    """Scores a unit by 1 - APoZ, where APoZ is the average percentage of zeros of its channels.

    Equation 1 of the paper: APoZ is the number of zeros over all samples and positions, divided by
    the number of samples and positions. Channels are measured where layers read them, behind norm
    and activation.

    Use when:
        The network has ReLUs, some of its channels are almost always zero, and only forward passes
        are possible. The paper prunes VGG-16 a few layers at a time, and trains after each cut.

    Fails when:
        Activations have no exact zeros (GELU, SiLU, PReLU), or are pooled before they are read:
        then all scores are 1 and the choice is arbitrary. A channel that is rarely active may still
        be the only one that detects its class; compare with ``Taylor``.

    Values:
        ``batches`` so that a few hundred to a few thousand samples are measured. No normalization
        is needed, because shares are comparable between groups.
    """

    def measure(self, maps: Tensor) -> Tensor:
        return maps != 0


easypruner_components = hookimpl(lambda: [APoZ])
