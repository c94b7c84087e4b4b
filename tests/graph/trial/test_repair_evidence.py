"""A number is repaired only if the forward pass reads it where it fails, never by its value."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import easypruner
from easypruner.graph.trial.reads import AT_LINE, BEFORE, IN_CALL, ReadLog
from easypruner.testing import example_inputs, randomized_network
from tests.graph.trial.test_python_numbers import cut_in_half, frozen_by_trials


class StateSpace(nn.Module):
    """A mixer as in Mamba: of its numbers that equal widths, the pass without a past reads two."""

    def __init__(self, kernel: int = 4, rank: int = 4, state: int = 16) -> None:
        super().__init__()
        self.hidden, self.state, self.kernel, self.rank = 16, state, kernel, rank
        self.conv = nn.Conv1d(16, 16, kernel, padding=kernel - 1, groups=16)
        self.project, self.step = nn.Linear(16, rank + 2 * state), nn.Linear(rank, 16)

    def forward(self, x: Tensor, past: Tensor | None = None) -> Tensor:
        if past is None:
            y = self.conv(x.transpose(1, 2))[..., : x.shape[1]]
        else:
            window = torch.cat([past, x], 1)[:, -self.kernel :]
            y = self.conv(window.transpose(1, 2))[..., self.kernel - 1 : self.kernel]
        y = y.transpose(1, 2)
        sizes = [self.rank, self.state, self.state]
        step, b, c = torch.split(self.project(y), sizes, dim=-1)
        return y * self.step(step) * (b * c).sum(-1, keepdim=True)


class StateSpaceModel(nn.Module):
    """Two mixers between an embedding and a head."""

    def __init__(self, **sizes: int) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(3, 16), nn.Linear(16, 5)
        self.mixers = nn.ModuleList(StateSpace(**sizes) for _ in range(2))

    def forward(self, x: Tensor, cached: bool = False) -> Tensor:
        x = self.embed(x.flatten(2).transpose(1, 2))
        before, last = x[:, :-1], x[:, -1:]
        for mixer in self.mixers:
            if cached:
                before, last = before + mixer(before), last + mixer(last, before)
            else:
                x = x + mixer(x)
        return self.head(last if cached else x)


@pytest.mark.parametrize(
    'sizes', [dict(), dict(rank=1, state=4), dict(kernel=8, rank=2, state=8), dict(rank=8, state=8)]
)
def test_a_number_that_equals_a_width_but_is_not_read_stays(sizes: dict[str, int]) -> None:
    model = randomized_network(lambda: StateSpaceModel(**sizes))
    expected = vars(model.mixers[0]).copy()
    record = cut_in_half(model, example_inputs())
    assert model.mixers[0].state == expected['state'] // 2
    assert model.mixers[0].rank == max(1, expected['rank'] // 2)
    for mixer in model.mixers:
        assert (mixer.kernel, mixer.hidden) == (expected['kernel'], expected['hidden'])
    assert {name for _, name in record.attributes} <= {'rank', 'state', 'groups'}
    last = model(example_inputs())[:, -1:]
    torch.testing.assert_close(model(example_inputs(), cached=True), last)


class Patches(nn.Module):
    """The shape of an image, in which the number of rows equals a width."""

    def __init__(self) -> None:
        super().__init__()
        self.shape = (8, 8, 8)
        self.stem, self.head = nn.Conv2d(3, 8, 1), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stem(x).flatten(2).reshape(-1, *self.shape).mean((2, 3)))


def test_each_number_of_a_tuple_is_tried_alone() -> None:
    model = randomized_network(Patches)
    cut_in_half(model, example_inputs())
    assert model.shape == (4, 8, 8)


class Product(nn.Module):
    """The product of two numbers, of which the shape does not tell the width."""

    def __init__(self) -> None:
        super().__init__()
        self.steps, self.width = 4, 4
        self.stem, self.head = nn.Conv2d(3, 4, 1), nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).mean(3)[..., :4].reshape(len(x), self.steps * self.width)
        return self.head(x.unflatten(1, (-1, 4)).mean(2))


def test_what_two_numbers_would_repair_alike_is_frozen() -> None:
    model = randomized_network(Product)
    graph = easypruner.trace(model, example_inputs())
    assert not graph.groups and 'stem.weight' in frozen_by_trials(graph)


class Groups(nn.Module):
    """A convolution whose number of groups is that of its input, beside a number of that name."""

    def __init__(self) -> None:
        super().__init__()
        self.groups = 8
        self.stem, self.head = nn.Conv2d(3, 8, 1), nn.Linear(8, 5)
        self.weight = nn.Parameter(torch.randn(8, 1, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(functional.conv2d(x, self.weight, groups=x.shape[1]).mean((2, 3)))


def test_a_number_that_a_rule_expects_but_no_code_reads_stays() -> None:
    model = randomized_network(Groups)
    cut_in_half(model, example_inputs())
    assert model.groups == 8


class Counting(nn.Module):
    """Reads a number at the failing line, one before it, and one in a call that has ended."""

    late = 3
    operations = 0

    def __init__(self) -> None:
        super().__init__()
        self.early, self.late, self.local, self.unread = 2, 3, 4, 6

    @property
    def hidden(self) -> int:
        return self.early

    def forward(self, x: Tensor) -> Tensor:
        early = self.hidden
        local = self.local
        self.operations += 3
        if len(x) > early:
            raise ValueError(f'{self.late}, {local}')
        return x


def test_reads_are_sorted_by_their_nearness_to_the_failure() -> None:
    module = Counting()
    names = ('early', 'late', 'local', 'unread')
    log = ReadLog({'a': module}, [('a', name) for name in names], lambda: module.operations)
    before = dict(vars(Counting))
    with pytest.raises(ValueError, match='3, 4'), log.active():
        module(torch.zeros(9))
    assert log.found == {('a', 'late'): AT_LINE, ('a', 'local'): IN_CALL, ('a', 'early'): BEFORE}
    assert dict(vars(Counting)) == before and vars(module)['late'] == 3


def test_a_class_is_watched_without_a_change_for_its_other_users() -> None:
    watched, other = Counting(), Counting()
    log = ReadLog({'': watched}, [('', 'late'), ('', 'early')], lambda: 0)
    with log.active():
        watched.late = 7
        del other.late
        assert (watched.late, other.late, Counting.late) == (7, 3, 3)
        del watched.early
        with pytest.raises(AttributeError, match='early'):
            _ = watched.early
    assert log.found == {('', 'late'): BEFORE}
    assert (vars(watched)['late'], watched.late, other.late) == (7, 7, 3)
