"""Compensation: removing channels of constant value changes nothing."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import easypruner
from easypruner import Context
from easypruner.errors import ConfigError, EasyPrunerError
from easypruner.strategies.measures.compensation import mean_compensation


class Constant(nn.Module):
    """Some channels of its first convolution are constant."""

    def __init__(self, reader: nn.Module, after: nn.Module) -> None:
        super().__init__()
        self.made = nn.Conv2d(3, 8, 1)
        self.reader = reader
        self.after = after
        with torch.no_grad():
            self.made.weight[[1, 4, 6]] = 0
            self.made.bias[[1, 4, 6]] = torch.tensor([0.5, 2.0, 1.0])

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.reader(torch.relu(self.made(x))))


def norm() -> nn.BatchNorm2d:
    layer = nn.BatchNorm2d(6)
    torch.nn.init.uniform_(layer.running_mean, -1, 1)
    return layer


READERS = {
    'convolution': (nn.Conv2d(8, 6, 1), nn.ReLU()),
    'kernel': (nn.Conv2d(8, 6, 3), nn.ReLU()),
    'grouped': (nn.Conv2d(8, 6, 1, groups=2), nn.ReLU()),
    'transposed': (nn.ConvTranspose2d(8, 6, 1, groups=1), nn.ReLU()),
    'norm': (nn.Conv2d(8, 6, 1, bias=False), norm()),
    'linear': (nn.Flatten(), nn.Linear(8 * 5 * 5, 6)),
}
MASK = torch.tensor([True, False, True, True, False, True, False, True])


def context_of(*batches: Tensor) -> Context:
    return Context(batches=lambda: batches, forward=lambda model, batch: model(batch))


@pytest.mark.parametrize('kind', READERS)
def test_constants_are_compensated_exactly(kind: str) -> None:
    torch.manual_seed(0)
    model = copy.deepcopy(Constant(*READERS[kind])).double().eval()
    images = torch.rand(4, 3, 5, 5, dtype=torch.float64)
    expected = model(images)
    graph = easypruner.trace(model, images)
    (name,) = (n for n, g in graph.groups.items() if 'made' in n)
    mask = MASK
    if kind == 'grouped':  # a unit is a position in every group
        mask = torch.tensor([True, False, False, True])
        with torch.no_grad():
            model.made.weight[[1, 2, 5, 6]] = 0
        expected = model(images)
    masks = {name: mask}
    compensation = mean_compensation(graph, masks, context_of(images), 1, 'a test')
    assert compensation.left == ()
    compensation.apply()
    easypruner.prune(model, masks, graph=graph)
    assert model.made.out_channels < 8
    torch.testing.assert_close(model(images), expected)


class Products(nn.Module):
    """Queries and keys, whose products see all of their channels."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(6, 6) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        rows = x.flatten(2).transpose(1, 2)
        attended = nn.functional.scaled_dot_product_attention(
            self.q(rows), self.k(rows), self.v(rows)
        )
        return attended.transpose(1, 2).unflatten(2, x.shape[2:])


MIXING = {
    'group norm': (nn.GroupNorm(2, 8), nn.Conv2d(8, 6, 1)),
    'product': (nn.Conv2d(8, 6, 1), Products()),
}


@pytest.mark.parametrize(('kind', 'where'), [('group norm', 'reader'), ('product', 'after')])
def test_layers_that_mix_channels_are_unchanged_and_named(kind: str, where: str) -> None:
    torch.manual_seed(0)
    model = copy.deepcopy(Constant(*MIXING[kind])).double().eval()
    images = torch.rand(4, 3, 5, 5, dtype=torch.float64)
    graph = easypruner.trace(model, images)
    masks = {n: torch.arange(g.size) < g.size - 1 for n, g in graph.groups.items()}
    left = mean_compensation(graph, masks, context_of(images), 1, 'a test').left
    assert [note for note in left if note.endswith(f' in {where}')]


def test_the_mean_over_batches_is_what_counts() -> None:
    torch.manual_seed(0)
    model = Constant(nn.Conv2d(8, 6, 1), nn.Identity()).double().eval()
    images = [torch.rand(n, 3, 4, 4, dtype=torch.float64) for n in (2, 3)]
    graph = easypruner.trace(model, images[0])
    mask = torch.arange(8) > 2
    compensation = mean_compensation(graph, {'made': mask}, context_of(*images), 9, 'a test')
    held = torch.relu(model.made(torch.cat(images))).mean(dim=(0, 2, 3))
    ((bias, shift),) = compensation.shifts
    assert bias is model.reader.bias
    expected = sum(model.reader.weight[:, c, 0, 0] * held[c] for c in range(3))
    torch.testing.assert_close(shift, expected)


def test_a_layer_without_bias_and_norm_is_named() -> None:
    model = Constant(nn.Conv2d(8, 6, 1, bias=False), nn.ReLU()).eval()
    images = torch.rand(2, 3, 4, 4)
    graph = easypruner.trace(model, images)
    compensation = mean_compensation(graph, {'made': MASK}, context_of(images), 1, 'a test')
    assert compensation.left == ('reader',) and compensation.shifts == ()


def test_masks_that_remove_nothing_need_no_data() -> None:
    model = Constant(*READERS['convolution']).eval()
    graph = easypruner.trace(model, torch.rand(2, 3, 4, 4))
    masks = {'made': torch.ones(8, dtype=torch.bool)}
    found = mean_compensation(graph, masks, context_of(torch.rand(1, 3, 4, 4)), 1, 'a test')
    assert found.shifts == () and found.left == ()


def test_without_data_the_error_names_the_requester() -> None:
    model = Constant(*READERS['convolution']).eval()
    graph = easypruner.trace(model, torch.rand(2, 3, 4, 4))
    with pytest.raises(EasyPrunerError, match='a test needs'):
        mean_compensation(graph, {'made': MASK}, context_of(), 1, 'a test')
    with pytest.raises(ConfigError, match='a test needs'):
        mean_compensation(graph, {'made': MASK}, Context(), 1, 'a test')


class Functional(nn.Module):
    """A batch norm that is not a module."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer('mean', torch.rand(6))
        self.register_buffer('variance', torch.rand(6) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.batch_norm(x, self.mean, self.variance)


class Forked(nn.Module):
    """A batch norm whose input has another reader."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(6)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x) + x


class Matrix(nn.Module):
    """Reads channels by a matrix product."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.rand(8, 6))

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3)) @ self.matrix


def compensated(model: nn.Module, images: Tensor) -> tuple[Tensor, tuple[str, ...]]:
    """Return the outputs of a network after a compensated cut, and what was not compensated."""
    graph = easypruner.trace(model, images)
    found = mean_compensation(graph, {'made': MASK}, context_of(images), 1, 'a test')
    found.apply()
    easypruner.prune(model, {'made': MASK}, graph=graph)
    return model(images), found.left


@pytest.mark.parametrize(
    'after', [Functional(), nn.BatchNorm2d(6, affine=False), nn.BatchNorm2d(6, momentum=None)]
)
def test_any_batch_norm_right_behind_takes_it(after: nn.Module) -> None:
    torch.manual_seed(0)
    model = Constant(nn.Conv2d(8, 6, 3, bias=False), copy.deepcopy(after)).double().eval()
    images = torch.rand(4, 3, 5, 5, dtype=torch.float64)
    expected = model(images)
    actual, left = compensated(model, images)
    torch.testing.assert_close(actual, expected)
    assert left == ()


def test_a_norm_of_the_batch_s_own_statistics_needs_nothing() -> None:
    torch.manual_seed(0)
    after = nn.BatchNorm2d(6, track_running_stats=False)
    model = Constant(nn.Conv2d(8, 6, 3, bias=False), after).double().eval()
    images = torch.rand(4, 3, 5, 5, dtype=torch.float64)
    expected = model(images)
    actual, left = compensated(model, images)
    torch.testing.assert_close(actual, expected)
    assert left == ()


def test_a_norm_that_is_not_alone_is_not_changed() -> None:
    torch.manual_seed(0)
    model = Constant(nn.Conv2d(8, 6, 1, bias=False), Forked()).eval()
    before = model.after.norm.running_mean.clone()
    _, left = compensated(model, torch.rand(4, 3, 5, 5))
    assert left == ('reader',)
    assert torch.equal(model.after.norm.running_mean, before)


def test_other_readers_of_channels_are_named() -> None:
    torch.manual_seed(0)
    _, left = compensated(Constant(nn.Identity(), Matrix()).eval(), torch.rand(4, 3, 5, 5))
    assert left == ('after.matrix',)


def test_a_layer_that_is_used_twice_gets_the_mean_of_both() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.made = nn.Conv2d(3, 4, 1)
            self.reader = nn.Conv2d(4, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.reader(self.made(x)) * self.reader(self.made(2 * x))

    torch.manual_seed(0)
    model = Twice().double().eval()
    images = torch.rand(4, 3, 5, 5, dtype=torch.float64)
    graph = easypruner.trace(model, images)
    mask = torch.arange(4) > 0
    found = mean_compensation(graph, {'made': mask}, context_of(images), 1, 'a test')
    held = torch.cat([model.made(images), model.made(2 * images)])[:, 0].mean()
    ((_, shift),) = found.shifts
    torch.testing.assert_close(shift, model.reader.weight[:, 0, 0, 0].detach() * held.detach())


def test_strided_transposed_kernels_count_by_their_mean() -> None:
    torch.manual_seed(0)
    reader = nn.ConvTranspose2d(8, 6, 2, stride=2, groups=2)
    model = Constant(reader, nn.AdaptiveAvgPool2d(1)).double().eval()
    with torch.no_grad():
        model.made.weight[[1, 2, 5, 6]] = 0
    images = torch.rand(4, 3, 5, 5, dtype=torch.float64)
    expected = model(images)
    graph = easypruner.trace(model, images)
    (name,) = graph.groups
    masks = {name: torch.tensor([True, False, False, True])}
    found = mean_compensation(graph, masks, context_of(images), 1, 'a test')
    found.apply()
    easypruner.prune(model, masks, graph=graph)
    torch.testing.assert_close(model(images), expected)


def test_the_network_stays_unchanged_until_it_is_applied() -> None:
    model = Constant(*READERS['norm']).train()
    images = torch.rand(4, 3, 5, 5)
    graph = easypruner.trace(model, images)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    mean_compensation(graph, {'made': MASK}, context_of(images), 1, 'a test')
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert all(module.training for module in model.modules())
