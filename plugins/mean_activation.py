"""Mask source: mean activations (Polyak and Wolf, 2015; Molchanov et al., 2017, 1611.06440)."""

from __future__ import annotations

from torch import Tensor

from easypruner import hookimpl
from easypruner.strategies.sources.bases import ActivationSource


class MeanActivation(ActivationSource, normalization='mean'):
    """Scores a unit by the mean of |activation| of its channels over samples and positions.

    This is the activation criterion of Molchanov et al., section 2.2. Behind a ReLU, magnitudes
    are the activations themselves. Channels are measured where layers read them, behind norm and
    activation. The scale of activations differs between layers, so scores are divided by the mean
    of their group unless ``normalization`` is changed.

    Use when:
        Only forward passes are possible, and activations have no exact zeros, so that ``APoZ``
        cannot be used. Where gradients are available, Molchanov et al. find that Taylor expansion
        predicts the change of the loss better (section 3).

    Fails when:
        A channel has a large, but constant activation: it scores high, although a bias could
        replace it. The weights that read the channel are not considered either.

    Values:
        ``batches`` so that a few hundred samples are measured.
    """

    def measure(self, maps: Tensor) -> Tensor:
        return maps.abs()


easypruner_components = hookimpl(lambda: [MeanActivation])
