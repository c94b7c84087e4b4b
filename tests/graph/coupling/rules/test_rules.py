"""Rules of single operations: the coupling of each, and the reasons of frozen channels."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import easypruner
from easypruner.testing import example_inputs, randomized_network


class Around(nn.Module):
    """A function of channels, between two convolutions."""

    def __init__(self, function: Callable[[Tensor], Tensor], width: int, after: int) -> None:
        super().__init__()
        self.function = function
        self.before, self.after = nn.Conv2d(3, width, 3), nn.Conv2d(after, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.function(self.before(x)))


def reasons(model: nn.Module) -> dict[tuple[str, int], str]:
    frozen = easypruner.trace(model, example_inputs()).frozen
    return {(entry.param, entry.dim): entry.reason for entry in frozen}


def test_every_second_channel_is_coupled_to_its_neighbour() -> None:
    model = randomized_network(
        lambda: Around(lambda x: torch.cat([x[:, 1::2], x[:, ::2]], 1), 8, 8)
    )
    graph = easypruner.trace(model, example_inputs())
    before = next(m for m in graph.groups['before'].members if m.param == 'before.weight')
    assert before.index.tolist() == [[0, 1], [2, 3], [4, 5], [6, 7]]
    masks = {'before': torch.tensor([False, True, False, True])}
    assert easypruner.verify(model, masks, example_inputs()).error < 1e-12


def test_every_second_of_an_odd_number_of_channels_stays() -> None:
    model = Around(lambda x: torch.cat([x[:, 1::2], x[:, ::2]], 1), 7, 7)
    assert 'the last step is shorter' in reasons(model)['before.weight', 0]


def rows(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def maps(rows: Tensor) -> Tensor:
    return rows.unflatten(1, (6, 6)).permute(0, 3, 1, 2)


@pytest.mark.parametrize(
    ('function', 'after'),
    [
        (lambda x: maps(functional.avg_pool1d(rows(x), 2)), 4),
        (lambda x: maps(functional.adaptive_avg_pool1d(rows(x), 2)), 2),
        (lambda x: maps(functional.interpolate(rows(x), scale_factor=2)), 16),
        (lambda x: maps(functional.conv1d(rows(x), torch.ones(36, 36, 3))), 6),
        (lambda x: functional.pixel_shuffle(x.transpose(1, 2).repeat(1, 2, 1, 1), 2), 3),
    ],
)  # fmt: skip
def test_channels_that_are_read_as_positions_stay(
    function: Callable[[Tensor], Tensor], after: int
) -> None:
    reason = reasons(Around(function, 8, after))['before.weight', 0]
    assert 'channels are read as positions' in reason


def test_the_dimension_of_a_mode_may_be_left_out() -> None:
    graph = easypruner.trace(Around(lambda x: x.mode()[0][..., None], 8, 8), example_inputs())
    assert not graph.groups['before'].mixed
    graph = easypruner.trace(
        Around(lambda x: x + x.transpose(1, 3).mode()[0][:, None].mean(), 8, 8), example_inputs()
    )
    assert graph.groups['before'].mixed == ('mode in the model itself',)


@pytest.mark.parametrize(('dim', 'mixed'), [(0, True), (1, False), (-3, False), (2, True)])
def test_renorm_mixes_all_dimensions_but_its_own(dim: int, mixed: bool) -> None:
    model = randomized_network(lambda: Around(lambda x: x.renorm(2, dim, 0.1), 8, 8))
    group = easypruner.trace(model, example_inputs()).groups['before']
    assert bool(group.mixed) == mixed
    result = easypruner.verify(model, {'before': torch.arange(8) < 3}, example_inputs())
    assert result.error < 1e-12 and bool(result.unchecked) == mixed


def test_a_parameter_of_which_only_the_shape_is_read_is_unused() -> None:
    """It has no channels, also where a trial fails and its operation is looked at."""

    class Shaped(Around):
        def __init__(self) -> None:
            super().__init__(lambda x: (x + self.empty.new_zeros(1)).view(-1, 8, 36).mean(1), 8, 8)
            self.empty, self.after = nn.Parameter(torch.ones(3, 4)), nn.Linear(36, 5)

    model = Shaped()
    assert 'view(-1, 8, 36)' in reasons(model)['before.weight', 0]
    assert reasons(model)['empty', 0] == 'not used in the forward pass'
