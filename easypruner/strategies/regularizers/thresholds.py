"""Thresholds: soft thresholding of norm scales and biases."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.optim import Optimizer

from easypruner.strategies.regularizers.schedule import Progress
from easypruner.strategies.regularizers.selected import SelectedScales
from easypruner.strategies.regularizers.stepping import StepSizes, with_states


class Thresholds:
    """Soft thresholding of parameters, in one row for all of them.

    Args:
        selected: the parameters, and the factors of the strength at their entries.
        optimizer: the optimizer that trains them.
    """

    def __init__(self, selected: SelectedScales, optimizer: Optimizer) -> None:
        self._selected = selected
        self._groups = optimizer.param_groups
        owners: list[Tensor] = []
        self._tensors: list[Tensor] = []
        weights: list[Tensor] = []
        for tensor, weight in zip(selected.tensors, selected.weights, strict=True):
            for values in with_states(optimizer, tensor):
                owners.append(tensor)
                self._tensors.append(values)
                weights.append(weight.expand_as(values).reshape(-1))
        first = self._tensors[0]
        self._numbers = [tensor.numel() for tensor in self._tensors]
        self._weights = torch.cat([weight.to(first) for weight in weights])
        # Scales and biases of one type, on one device, need no conversion.
        kinds = {(tensor.dim(), tensor.dtype, tensor.device) for tensor in self._tensors}
        self._are_rows = kinds == {(1, first.dtype, first.device)}
        self._sizes = StepSizes(optimizer, owners)
        self._known: tuple[list[float], Tensor, Tensor] | None = None
        # The same memory for all updates: after an update of a large network, caches are cold.
        self._row = torch.empty_like(self._weights)
        self._parts = torch.split(self._row, self._numbers)

    def fit(self, selected: SelectedScales, optimizer: Optimizer) -> bool:
        """Tell whether they are those of these parameters and this optimizer, as it is now."""
        # An optimizer that has loaded a state has other parameter groups and tensors.
        return self._selected is selected and self._groups is optimizer.param_groups

    def apply(self, strength: float, progress: Progress) -> None:
        """Bring the magnitude of each entry down by its threshold, at most to zero."""
        most, least = self._thresholds([strength * size for size in self._sizes(progress)])
        rows, pushes = self._tensors, list(self._parts)
        if not self._are_rows:
            rows = [tensor.reshape(-1).to(most) for tensor in rows]
        torch.cat(rows, out=self._row)
        torch.clamp(self._row, least, most, out=self._row)
        if not self._are_rows:
            pairs = zip(pushes, self._tensors, strict=True)
            pushes = [push.view_as(tensor).to(tensor) for push, tensor in pairs]
        torch._foreach_sub_(self._tensors, pushes)

    def _thresholds(self, sizes: list[float]) -> tuple[Tensor, Tensor]:
        """Return the threshold of each entry and its negative, mostly those of the last update."""
        if self._known is None or self._known[0] != sizes:
            if len(set(sizes)) == 1:
                most = self._weights * sizes[0]
            else:
                numbers = torch.tensor(self._numbers, device=self._weights.device)
                most = self._weights * self._weights.new_tensor(sizes).repeat_interleave(numbers)
            self._known = sizes, most, -most
        return self._known[1:]
