"""Views of memory by strides: a sliding window leaves the channels free that it does not cross."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import easypruner
from easypruner.testing import check_rule, randomized_network

Function = Callable[[Tensor], Tensor]


class Strided(nn.Module):
    """A function of the memory of some channels at 12 positions, between two layers."""

    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function = function
        self.first, self.last = nn.Linear(6, 9), nn.Linear(9, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.function(self.first(x).sigmoid()).sum(1))


def windows(h: Tensor) -> Tensor:
    """Windows of 4 positions, each 2 behind the last one."""
    batch, size, width = h.shape
    outer, step, inner = h.stride()
    return h.as_strided((batch, (size - 2) // 2, 4, width), (outer, 2 * step, step, inner))


def of_heads(h: Tensor) -> Tensor:
    """Windows of each channel, which is before the positions in memory."""
    columns = h.transpose(1, 2).contiguous()
    outer, middle, inner = columns.stride()
    found = columns.as_strided((*columns.shape[:2], 9, 4), (outer, middle, inner, inner))
    return found.amax(3).transpose(1, 2)


def behind(h: Tensor) -> Tensor:
    """The later one of each two positions, among the memory of the earlier ones."""
    batch, size, width = h.shape
    first = h.view(batch, size // 2, 2 * width)[..., :width]
    return first.as_strided(first.shape, first.stride(), width)


FREE: dict[str, Function] = {'windows': lambda h: windows(h).amax(2), 'of heads': of_heads}

FIXED: dict[str, Function] = {
    'numbers in the code': lambda h: h.as_strided((2, 11, h.shape[2]), (108, 9, 1)),
    'across channels': lambda h: h.as_strided((2, 10, 9), (108, 9, 2)),
    'behind an offset': lambda h: h.as_strided((2, 11, 9), (108, 9, 1), 9),
    'behind a part': behind,
    'same numbers': lambda h: h[:, ::2].as_strided((2, 6, h.shape[2]), (108, 18, 1)),
    'of a part': lambda h: h[:, :, :7].as_strided((2, 11, 9), (108, 9, 1)),
}


@pytest.mark.parametrize('name', FREE)
def test_windows_leave_channels_free(name: str) -> None:
    model, x = randomized_network(lambda: Strided(FREE[name])), torch.randn(2, 12, 6)
    graph = easypruner.trace(model, x)
    assert [group.size for group in graph.groups.values()] == [9]
    check_rule(model, x)


@pytest.mark.parametrize('name', FIXED)
def test_channels_stay_where_strides_do_not_follow_them(name: str) -> None:
    model, x = randomized_network(lambda: Strided(FIXED[name])), torch.randn(2, 12, 6)
    graph = easypruner.trace(model, x)
    assert not graph.groups
    reasons = {each.reason for each in graph.frozen if each.param == 'first.weight'}
    assert any('strides' in reason and 'as_strided' in reason for reason in reasons)


def overlapped(h: Tensor) -> Tensor:
    """Windows that are put together again, as an inverse Fourier transform puts them."""
    found = h.unfold(1, 4, 2) * torch.arange(1.0, 5.0)
    return torch.ops.aten.unfold_backward(found, h.shape, 1, 4, 2)


def test_windows_that_are_put_together_leave_channels_free() -> None:
    model, x = randomized_network(lambda: Strided(overlapped)), torch.randn(2, 12, 6)
    assert [group.size for group in easypruner.trace(model, x).groups.values()] == [9]
    check_rule(model, x)
