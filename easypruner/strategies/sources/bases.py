"""Base classes of mask sources that score units by weights, by gradients or by activations."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from easypruner.base.checks import check_count, check_name
from easypruner.errors import ConfigError
from easypruner.graph import ChannelGraph, Member
from easypruner.strategies.budgets.budget import Budget
from easypruner.strategies.context import Context
from easypruner.strategies.measures import units
from easypruner.strategies.measures.activations import Probe, collect
from easypruner.strategies.measures.gradients import NamedTensors, gradients_of, mean_over_batches
from easypruner.strategies.sources.source import MaskSource


class WeightSource(MaskSource):
    """A mask source that scores units by the weights that ``over`` selects.

    Args:
        over: which weights are used: ``'producers'``, those that produce a unit's channels, or
            ``'group'``, all parameters of the coupled layers, with the weights that read the
            channels, norm scales and biases.
    """

    def __init__(
        self,
        budget: Budget | Sequence[Budget] | None = None,
        over: str = 'producers',
        reduction: str = 'mean',
        normalization: str = 'none',
    ) -> None:
        super().__init__(budget, reduction, normalization)
        self.over = check_name(over, 'over', type(self).__name__, units.OVER)


FORMS = ('weight', 'gate')
"""What represents a unit: each of its weights, or a gate, a factor of 1 on its channels."""


class GradientSource(WeightSource):
    """Scores units by squared products of weight and gradient.

    Args:
        form: what represents a unit. ``'weight'``: the sum of (g * w)^2 over the weights of a unit.
            ``'gate'``: (sum of g * w)^2 over the parameters that a gate on the unit multiplies,
            where a gate is a factor of 1 on the unit's channels.
        over: which weights ``form='weight'`` uses: ``'producers'``, those that produce a unit's
            channels, or ``'group'``, all parameters of the coupled layers.
        batches: the number of batches of training data.
        reduction: how the scores of the layers or gates of a group are combined.
    """

    def __init__(
        self,
        budget: Budget | Sequence[Budget] | None = None,
        form: str = 'weight',
        over: str = 'producers',
        batches: int = 10,
        reduction: str = 'sum',
        normalization: str = 'none',
    ) -> None:
        super().__init__(budget, over, reduction, normalization)
        owner = type(self).__name__
        self.form = check_name(form, 'form', owner, FORMS)
        self.batches = check_count(batches, 'batches', owner)
        if form == 'gate' and over != 'producers':
            raise ConfigError(
                f"over={over!r} of {owner} selects weights for form='weight', but form='gate' "
                "always uses those that a gate multiplies; leave over out, or use form='weight'"
            )

    def mean_squares(
        self, graph: ChannelGraph, context: Context, by_sample: bool = False
    ) -> dict[str, Tensor]:
        """Return group -> mean over batches, ``(layers, units)`` or, over a group, ``(units,)``.

        Args:
            graph: the channel graph of the model.
            context: the source of batches and loss.
            by_sample: whether to measure each sample of a batch by itself.
        """
        if self.form == 'gate':
            gates = units.gates_of(graph)
            every = [member for own in gates.values() for gate in own for member in gate]
        else:
            members = units.scored_members(graph, self.over)
            every = [member for own in members.values() for member in own]

        def measure(loss: Tensor, leaves: NamedTensors) -> dict[str, Tensor]:
            products = {
                name: units.widen(gradient) * units.widen(leaves[name].detach())
                for name, gradient in gradients_of(loss, leaves).items()
            }
            if self.form == 'gate':
                return {name: _gate_squares(products, own) for name, own in gates.items()}
            squares = {name: product.square() for name, product in products.items()}
            return units.score_members(
                members, self.over, lambda m: units.unit_sums(squares[m.param], m)
            )

        names = dict.fromkeys(member.param for member in every)
        owner = type(self).__name__
        return mean_over_batches(graph, context, names, measure, self.batches, owner, by_sample)


def _gate_squares(products: NamedTensors, gates: Sequence[Sequence[Member]]) -> Tensor:
    """Return the squared gradient of each gate, ``(gates, units)``."""
    sums = [
        torch.stack([units.unit_sums(products[m.param], m).cpu() for m in gate]) for gate in gates
    ]
    return torch.stack([each.sum(dim=0) for each in sums]).double().square()


class ActivationSource(MaskSource):
    """Scores a unit by the mean of a measure of its channels' activations.

    Each layer at which a group is measured is one of the coupled layers that ``reduction``
    combines.

    Args:
        batches: the number of batches of training data.
        reduction: how the scores of the layers at which a group is measured are combined.
    """

    def __init__(
        self,
        budget: Budget | Sequence[Budget] | None = None,
        batches: int = 10,
        reduction: str = 'mean',
        normalization: str = 'none',
    ) -> None:
        super().__init__(budget, reduction, normalization)
        self.batches = check_count(batches, 'batches', type(self).__name__)

    @abstractmethod
    def measure(self, maps: Tensor) -> Tensor:
        """Return a measure of maps; see ``Measure`` of easypruner.strategies.measures."""

    def probes(self, graph: ChannelGraph, context: Context) -> list[Probe] | None:
        """Return the probes at which to measure; None for the inputs of the layers that read."""
        return None

    def score(self, graph: ChannelGraph, context: Context) -> dict[str, Tensor]:
        probes = self.probes(graph, context)
        return collect(graph, context, self.batches, type(self).__name__, self.measure, probes)
