"""Remains: the norm scales and biases of removed channels that are not at zero."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from easypruner.graph import ChannelGraph

_ZERO = 0.01
"""The magnitude up to which a scale or a bias counts as zero."""


@dataclass(frozen=True)
class Remains:
    """The norm scales and biases of the channels that masks remove.

    Attributes:
        all_scales: the magnitudes of the scales.
        all_biases: the magnitudes of the biases.
    """

    all_scales: Tensor
    all_biases: Tensor

    @classmethod
    def of(
        cls, graph: ChannelGraph, masks: Mapping[str, Tensor], only: Collection[str] | None = None
    ) -> Remains:
        """Collect the scales and biases.

        Args:
            graph: the channel graph of the model.
            masks: group -> bool tensor ``(units,)``, True = keep.
            only: names of parameters; None for all.
        """
        keep = graph.keep(masks)
        found: dict[str, list[Tensor]] = {'weight': [torch.empty(0)], 'bias': [torch.empty(0)]}
        for name, operand in graph.operands.items():
            kind, _, part = operand.partition('.')
            counts = kind.endswith('_norm') and part in found and (name, 0) in keep
            if counts and (only is None or name in only):
                values = graph.parameter(name).detach().abs().float().cpu()
                found[part].append(values[~keep[name, 0].cpu()])
        return cls(*(torch.cat(values) for values in found.values()))

    @property
    def scales(self) -> int:
        """The number of scales above 0.01."""
        return int((self.all_scales > _ZERO).sum())

    @property
    def biases(self) -> int:
        """The number of biases above 0.01."""
        return int((self.all_biases > _ZERO).sum())

    def text(self) -> str:
        """Describe the scales and the biases that are not at zero."""
        return ' and '.join(
            f'{count} of {len(values)} removed norm {name} are above {_ZERO} '
            f'(largest {float(values.max()) if len(values) else 0:.2g})'
            for name, count, values in (
                ('scales', self.scales, self.all_scales),
                ('biases', self.biases, self.all_biases),
            )
        )
