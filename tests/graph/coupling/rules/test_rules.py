"""Rules of single operations: the coupling of each, and the reasons of frozen channels."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import easypruner
from easypruner.testing import check_rule, example_inputs, randomized_network


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


def sides(x: Tensor) -> Tensor:
    return x.permute(0, 3, 1, 2)


@pytest.mark.parametrize(
    'function',
    [
        lambda x: functional.adaptive_avg_pool2d(sides(x), (None, 1)).permute(0, 2, 3, 1),
        lambda x: functional.adaptive_max_pool2d(sides(x), (None, 2)).permute(0, 2, 3, 1),
        lambda x: functional.max_pool2d(sides(x), (1, 2)).permute(0, 2, 3, 1),
        lambda x: functional.avg_pool3d(x.mT.transpose(1, 2), (2, 1, 3)).mT.transpose(1, 3),
    ],
)  # fmt: skip
def test_pools_along_other_dimensions_keep_channels_apart(function: Callable) -> None:
    model = randomized_network(lambda: Around(function, 8, 8))
    graph = easypruner.trace(model, example_inputs())
    assert graph.groups['before'].size == 8 and not graph.groups['before'].mixed
    masks = {'before': torch.arange(8) % 3 > 0}
    assert easypruner.verify(model, masks, example_inputs()).error < 1e-12


def test_an_adaptive_pool_to_as_many_positions_as_channels_keeps_them() -> None:
    pool = nn.AdaptiveAvgPool2d((8, 1))
    model = Around(lambda x: pool(sides(x)).permute(0, 2, 3, 1), 8, 8)
    assert 'does not follow a cut' in reasons(model)['before.weight', 0]


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


@pytest.mark.parametrize(
    ('kernel', 'padding', 'mixed'), [(3, 1, True), (1, 0, False), (3, 0, None), (5, 1, None)]
)
def test_a_convolution_along_channels_mixes_them(
    kernel: int, padding: int, mixed: bool | None
) -> None:
    """Efficient channel attention. Without a value for each channel, they stay."""

    class Gated(Around):
        def __init__(self) -> None:
            super().__init__(self.gate, 8, 8)
            self.slide = nn.Conv1d(1, 1, kernel, padding=padding)

        def gate(self, x: Tensor) -> Tensor:
            gate = self.slide(x.mean((2, 3)).view(x.shape[0], 1, -1)).sigmoid()
            every = gate if mixed is not None else gate.mean(2)
            return x * every.view(x.shape[0], -1, 1, 1)

    model = randomized_network(Gated)
    graph = easypruner.trace(model, example_inputs())
    found = [bool(group.mixed) for group in graph.groups.values()]
    assert found == ([] if mixed is None else [mixed])
    if mixed is None:
        assert 'channels are read as positions' in reasons(model)['before.weight', 0]
        return
    masks = {'before': torch.arange(8) < 5}
    assert easypruner.verify(model, masks, example_inputs()).error < 1e-12
    easypruner.prune(model, masks, graph=graph)
    assert model(example_inputs()).shape == (2, 5, 6, 6)


def test_a_group_norm_of_single_channels_loses_groups_with_their_channels() -> None:
    model = randomized_network(
        lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(8, 8), nn.GELU(), nn.Conv2d(8, 4, 1))
    )
    graph = easypruner.trace(model, example_inputs())
    assert [(group.size, group.mixed) for group in graph.groups.values()] == [(8, ())]
    check_rule(model, example_inputs())
    easypruner.prune(model, {'0': torch.arange(8) < 3}, graph=graph)
    assert model[1].num_groups == model[1].num_channels == 3


@pytest.mark.parametrize(
    'rotate',
    [
        lambda x, angle: torch.view_as_real(
            torch.view_as_complex(x) * torch.polar(torch.ones_like(angle), angle)
        ),
        lambda x, angle: torch.view_as_real(
            torch.complex(x[..., 0], x[..., 1]).conj().resolve_conj() * angle
        ),
        lambda x, angle: torch.stack([torch.view_as_complex(x).imag, x[..., 0] * angle], -1),
    ],
)
def test_channels_pass_complex_numbers(rotate: Callable[[Tensor, Tensor], Tensor]) -> None:
    class Rotated(Around):
        def __init__(self) -> None:
            super().__init__(self.turn, 8, 8)
            self.angle = nn.Parameter(torch.randn(4, 1, 1))

        def turn(self, x: Tensor) -> Tensor:
            pairs = x.unflatten(1, (-1, 2)).movedim(2, -1).contiguous()
            return rotate(pairs, self.angle).movedim(-1, 2).flatten(1, 2)

    model = randomized_network(Rotated)
    assert [g.size for g in easypruner.trace(model, example_inputs()).groups.values()] == [4]
    check_rule(model, example_inputs())


@pytest.mark.filterwarnings('ignore:Sparse C.. tensor support')
@pytest.mark.parametrize('layout', [torch.sparse_coo, torch.sparse_csr, torch.sparse_csc])
@pytest.mark.parametrize('kind', ['input', 'buffer', 'attribute'])
def test_a_sparse_matrix_mixes_rows_but_not_channels(layout: torch.layout, kind: str) -> None:
    if kind == 'attribute' and layout is not torch.sparse_coo and torch.__version__ < '2.5':
        pytest.skip('torch cannot copy such an attribute into double precision before 2.5')
    matrix = (torch.rand(10, 10) > 0.7).float().to_sparse(layout=layout)

    class Spread(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(6, 9), nn.Linear(9, 4)
            self.register_buffer('matrix', matrix if kind == 'buffer' else None)
            self.other = matrix if kind == 'attribute' else None

        def forward(self, x: Tensor, given: Tensor | None = None) -> Tensor:
            known = given if self.matrix is None else self.matrix
            matrix = self.other if known is None else known
            h = self.first(x).sigmoid()
            return self.last(torch.sparse.mm(matrix, h) + matrix @ h + torch.addmm(h, matrix, h))

    inputs = (torch.randn(10, 6), matrix) if kind == 'input' else (torch.randn(10, 6),)
    model = randomized_network(Spread)
    graph = easypruner.trace(model, inputs)
    assert [(group.size, group.mixed) for group in graph.groups.values()] == [(9, ())]
    masks = {'first': torch.arange(9) < 4}
    assert easypruner.verify(model, masks, inputs).error < 1e-12
    easypruner.prune(model, masks, graph=graph)
    assert model(*inputs).shape == (10, 4)


def test_a_parameter_of_which_only_the_shape_is_read_is_unused() -> None:
    """It has no channels, also where a trial fails and its operation is looked at."""

    class Shaped(Around):
        def __init__(self) -> None:
            super().__init__(lambda x: (x + self.empty.new_zeros(1)).view(-1, 8, 36).mean(1), 8, 8)
            self.empty, self.after = nn.Parameter(torch.ones(3, 4)), nn.Linear(36, 5)

    model = Shaped()
    assert 'view(-1, 8, 36)' in reasons(model)['before.weight', 0]
    assert reasons(model)['empty', 0] == 'not used in the forward pass'
