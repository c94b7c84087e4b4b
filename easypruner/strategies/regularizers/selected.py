"""SelectedScales: the parameters that a regularizer pushes, and how much each entry is pushed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from easypruner.errors import EasyPrunerError


def check_not_nan(names: Sequence[str], tensors: Sequence[Tensor], owner: str) -> None:
    """Raise EasyPrunerError if a parameter has NaN entries.

    Args:
        names: the names of the parameters.
        tensors: the parameters.
        owner: the name of the regularizer, for the message.
    """
    for name, tensor in zip(names, tensors, strict=True):
        if bad := int(tensor.isnan().sum()):
            raise EasyPrunerError(
                f'{owner} pushes {name!r}, of which {bad} of {tensor.numel()} entries are NaN; '
                'the previous training has diverged, or the weights are damaged'
            )


@dataclass(frozen=True)
class SelectedScales:
    """The parameters that a regularizer pushes.

    Attributes:
        names: the names of the parameters.
        tensors: the parameters.
        weights: for each parameter, the factors of the strength at its entries, 0 for entries that
            are not pushed; they broadcast to the shape of the parameter.
        lacking: the names of groups that should be pushed, but do not have a scale.
    """

    names: list[str] = field(default_factory=list)
    tensors: list[Tensor] = field(default_factory=list)
    weights: list[Tensor] = field(default_factory=list)
    lacking: tuple[str, ...] = ()

    @torch.no_grad()
    def largest(self, owner: str) -> float:
        """Return the largest magnitude that is pushed, divided by its factor; 0 if none is.

        Raises:
            EasyPrunerError: a parameter has NaN entries; the message names ``owner``.
        """
        check_not_nan(self.names, self.tensors, owner)
        pairs = zip(self.tensors, self.weights, strict=True)
        return max((float(torch.where(w > 0, t.abs() / w, 0).max()) for t, w in pairs), default=0.0)
