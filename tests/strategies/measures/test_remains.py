"""Remains against counts by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from easypruner import Masks
from easypruner.strategies.measures.remains import Remains
from easypruner.testing.networks import Plain, Residual
from tests.helpers.networks import Volume
from tests.helpers.pushes import Case, make_case


def removed_by_hand(case: Case, part: str) -> list[float]:
    found = []
    for name, module in case.scales().items():
        for channel, (_, kept) in enumerate(case.channels(name)):
            if not kept:
                found.append(abs(getattr(module, part)[channel].item()))
    return found


@pytest.mark.parametrize('build', [Plain, Residual])
def test_it_counts_the_removed_scales_and_biases(build: type[nn.Module]) -> None:
    case = make_case(build)
    with torch.no_grad():
        for module in case.scales().values():
            module.weight[::2] = torch.tensor([0.01, -0.0099, 0.0101, -2.0, 0.0]).repeat(9)[
                : len(module.weight[::2])
            ]
            module.bias[1::2] = 0.005
    remains = Remains.of(case.graph, case.masks)
    scales, biases = removed_by_hand(case, 'weight'), removed_by_hand(case, 'bias')
    assert sorted(remains.all_scales.tolist()) == pytest.approx(sorted(scales))
    assert sorted(remains.all_biases.tolist()) == pytest.approx(sorted(biases))
    counts = [sum(value > 0.0100001 for value in values) for values in (scales, biases)]
    assert [remains.scales, remains.biases] == counts
    assert 0 < counts[0] < len(scales)
    assert remains.text() == (
        f'{counts[0]} of {len(scales)} removed norm scales are above 0.01 '
        f'(largest {max(scales):.2g}) and {counts[1]} of {len(biases)} removed norm biases are '
        f'above 0.01 (largest {max(biases):.2g})'
    )


def test_it_may_count_single_parameters_only() -> None:
    case = make_case(Plain)
    parts = [Remains.of(case.graph, case.masks, [name]).all_scales for name in case.scales()]
    every = Remains.of(case.graph, case.masks).all_scales
    assert torch.equal(torch.cat(parts).sort().values, every.sort().values)
    assert len(parts) > 1 and not Remains.of(case.graph, case.masks, []).all_scales.numel()


def test_masks_that_remove_nothing_and_networks_without_norms_leave_nothing() -> None:
    case, other = make_case(Plain), make_case(Volume)
    for remains in (Remains.of(case.graph, Masks()), Remains.of(other.graph, other.masks)):
        assert (remains.scales, remains.biases) == (0, 0)
        assert remains.text().startswith('0 of 0 removed norm scales are above 0.01 (largest 0)')


class Normed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.group = nn.Conv2d(3, 8, 3), nn.GroupNorm(8, 8)
        self.b, self.layer = nn.Conv2d(8, 6, 1), nn.LayerNorm(6)
        self.head = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(self.b(self.group(self.a(x)).relu()).mean((2, 3))))


def test_norms_of_all_kinds_count() -> None:
    case = make_case(Normed)
    removed = sum(int((~mask).sum()) for mask in case.masks.values())
    remains = Remains.of(case.graph, case.masks)
    assert len(remains.all_scales) == len(remains.all_biases) == removed > 0
