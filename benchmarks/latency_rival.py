"""Half of a network by Torch-Pruning, for the comparison of times."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from easypruner import trace

_STEPS = 7
_KEEP = 0.5


def half_by_torch_pruning(full: nn.Module, image: Tensor, round_to: int | None) -> nn.Module:
    """Return a copy that Torch-Pruning has cut to about half of the MACs.

    It has no budget for MACs, so the same ratio for all layers is found by bisection. With
    ``round_to`` the nearest to half counts, from either side.

    Args:
        full: the network.
        image: its example input.
        round_to: the number of which all widths are multiples.
    """
    whole = trace(full, image).cost().macs
    low, high = 0.0, 0.9
    best, distance = full, 1.0
    for _ in range(_STEPS):
        ratio = (low + high) / 2
        network = _pruned(full, image, ratio, round_to)
        share = trace(network, image).cost().macs / whole
        if abs(share - _KEEP) < distance:
            best, distance = network, abs(share - _KEEP)
        low, high = (ratio, high) if share > _KEEP else (low, ratio)
    return best


def _pruned(full: nn.Module, image: Tensor, ratio: float, round_to: int | None) -> nn.Module:
    import torch_pruning as tp

    network = copy.deepcopy(full)
    last = [m for m in network.modules() if isinstance(m, nn.Linear)][-1]
    options: dict[str, Any] = {} if round_to is None else {'round_to': round_to}
    # Its parameters have to require gradients to be pruned.
    pruner = tp.pruner.BasePruner(
        network,
        image,
        importance=tp.importance.MagnitudeImportance(p=1),
        pruning_ratio=ratio,
        ignored_layers=[last],
        **options,
    )
    with torch.no_grad():
        pruner.step()
    return network.eval()
