"""VGGSmall: its widths are those that were asked for, and it can be pruned."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import easypruner
from easypruner.models import VGGSmall


def test_widths_and_maps() -> None:
    model = VGGSmall([[4], [6, 8], [10]], in_channels=1)
    widths = [m.out_channels for m in model.modules() if isinstance(m, nn.Conv2d)]
    (out,) = model(torch.zeros(2, 1, 12, 12))
    assert (widths, out.shape) == ([4, 6, 8, 10], (2, 10, 3, 3))


def test_it_can_be_pruned() -> None:
    model = nn.Sequential(VGGSmall([[4], [6]], in_channels=1)).eval()
    graph = easypruner.trace(model, torch.zeros(1, 1, 8, 8))
    # The last convolution makes the outputs.
    assert [group.size for group in graph.groups.values()] == [4]


@pytest.mark.parametrize('stages', [[], [[]], [[0]], [['8']], [[True]]])
def test_wrong_stages_are_refused(stages: Any) -> None:
    with pytest.raises(ValueError, match='of VGGSmall; expected the numbers of channels'):
        VGGSmall(stages)
