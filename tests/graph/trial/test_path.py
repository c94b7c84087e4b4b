"""Code whose steps depend on widths: masks with which it runs others are refused."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

import easypruner
from easypruner.errors import MaskError
from easypruner.testing import randomized_network


def first_units(graph: easypruner.graph.ChannelGraph, count: int) -> dict[str, Tensor]:
    """Return masks that keep the first units of each group, at most ``count``."""
    return {name: torch.arange(group.size) < count for name, group in graph.groups.items()}


class Shortcuts(nn.Module):
    """Adds the input of a layer to its output where both have one shape."""

    def __init__(self, *widths: int) -> None:
        super().__init__()
        pairs = pairwise(widths)
        self.layers = nn.ModuleList(nn.Conv1d(a, b, 3, padding=1) for a, b in pairs)
        self.head = nn.Linear(widths[-1], 2)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = self.join(x, layer(x).relu())
        return self.head(x.mean(-1))

    def join(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y if x.shape == y.shape else y


def same(first: int, second: int) -> bool:
    """Compare two numbers that other code has read."""
    return first == second


class SharedTest(Shortcuts):
    """Reads shapes in one function and compares them in another one."""

    def join(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y if same(x.shape[1], y.shape[1]) else y


class Comparer:
    """An object that is no module."""

    def same(self, first: Tensor, second: Tensor) -> bool:
        return not first.shape[1] - second.shape[1]


class OtherSteps(Shortcuts):
    """Lets an object compare widths, and runs other steps if they are equal."""

    def __init__(self, *widths: int) -> None:
        super().__init__(*widths)
        self.comparer = Comparer()

    def join(self, x: Tensor, y: Tensor) -> Tensor:
        return y.tanh() if self.comparer.same(x, y) else y.sigmoid()


def added(net: Shortcuts) -> list[bool]:
    """Return for each layer whether it has as many inputs as outputs."""
    return [layer.in_channels == layer.out_channels for layer in net.layers]


@pytest.mark.parametrize('kind', [Shortcuts, SharedTest, OtherSteps])
@pytest.mark.parametrize('widths', [(3, 16, 24, 24), (3, 24, 16, 10, 10), (2, 8, 8, 16, 16)])
def test_masks_are_refused_just_if_widths_become_equal(
    kind: type[Shortcuts], widths: tuple[int, ...]
) -> None:
    net, x = randomized_network(lambda: kind(*widths)), torch.randn(2, widths[0], 9)
    graph = easypruner.trace(net, x)
    assert graph.groups
    refused = 0
    for count in range(1, max(widths)):
        masks = first_units(graph, count)
        cut = copy.deepcopy(net)
        try:
            easypruner.prune(cut, masks, graph=graph.on(cut))
        except MaskError as error:
            refused += 1
            assert 'the code takes another path' in str(error)
            assert all(map(torch.equal, cut.state_dict().values(), net.state_dict().values()))
            with pytest.raises(MaskError):
                easypruner.verify(net, masks, x, graph=graph)
        else:
            assert added(cut) == added(net)
            assert easypruner.verify(net, masks, x, graph=graph).passed
    assert refused


class Stage(nn.Module):
    """Projects its input if its numbers differ; the code needs one of them only for that."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.width, self.out, self.mix = width, out, nn.Linear(width, out)
        if width != out:
            self.project = nn.Linear(width, out)

    def forward(self, x: Tensor) -> Tensor:
        y = self.mix(x).view(len(x), -1, self.out)
        return y.relu() + (self.project(x) if self.width != self.out else x)


class Comparing(nn.Module):
    """Stages each of which halves or doubles the width."""

    def __init__(self, *widths: int) -> None:
        super().__init__()
        stages = map(Stage, widths, widths[1:])
        self.stem, self.stages = nn.Linear(5, widths[0]), nn.Sequential(*stages)
        self.head = nn.Linear(widths[-1], 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stages(self.stem(x)))


@pytest.mark.parametrize('widths', [(8, 16, 32, 32), (32, 16, 16, 8), (16, 16, 32, 16)])
def test_numbers_that_are_only_compared_follow(widths: tuple[int, ...]) -> None:
    net, x = randomized_network(lambda: Comparing(*widths)), torch.randn(2, 7, 5)
    graph = easypruner.trace(net, x)
    for share in (2, 4):
        masks = {name: torch.arange(g.size) % share == 0 for name, g in graph.groups.items()}
        assert easypruner.verify(net, masks, x, graph=graph).passed


class Threshold(nn.Module):
    """Takes another step below a width that no trial has."""

    def __init__(self, code: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.last, self.code = nn.Linear(3, 64), nn.Linear(64, 4), code

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.code(self.first(x)))


@pytest.mark.parametrize(
    'code',
    [
        lambda x: x.relu() if x.shape[-1] > 5 else x.sigmoid(),
        lambda x: x.relu() if x.size(-1) not in (5, 4) else x,
        lambda x: x.relu() if max(x.size(-1), 5) != 5 else x.tanh(),
        lambda x: x.relu() if x.shape[-1] // 6 else x.relu().relu(),
    ],
)
def test_rare_widths_are_refused_with_the_line(code: Callable[[Tensor], Tensor]) -> None:
    net, x = randomized_network(lambda: Threshold(code)), torch.randn(5, 3)
    graph = easypruner.trace(net, x)
    with pytest.raises(MaskError, match=r'takes another path.* in the model itself') as found:
        easypruner.prune(net, {'first': torch.arange(64) < 5}, graph=graph)
    assert 'keep other numbers of units' in str(found.value)
    assert net.first.out_features == 64
    easypruner.prune(net, {'first': torch.arange(64) < 6}, graph=graph)
    assert net.first.out_features == 6
    with pytest.raises(MaskError, match='takes another path'):
        easypruner.prune(net, {'first': torch.arange(6) < 5}, graph=graph)


def scaled(x: Tensor, numbers: Iterable[object]) -> Tensor:
    for _ in numbers:
        x = x * 1.5
    return x


def halved(x: Tensor) -> Tensor:
    left = x.shape[-1] // 16
    while left:
        x, left = x * 1.5, left - 1
    return x


def matched(x: Tensor) -> Tensor:
    match x.shape[-1]:
        case 64:
            return x * 2
    return x + 1


@pytest.mark.parametrize(
    'code',
    [
        lambda x: scaled(x, range(x.shape[-1] // 16)),
        lambda x: scaled(x, torch.arange(x.shape[-1] // 16).tolist()),
        lambda x: [torch.tanh, torch.sin, torch.cos, torch.exp, torch.abs][x.shape[-1] // 16](x),
        lambda x: {64: torch.neg}.get(x.shape[-1], torch.abs)(x),
        lambda x: getattr(x, 'sin' if x.shape[-1] // 16 == 4 else 'cos')(),
        halved,
        matched,
    ],
)
def test_loops_and_choices_by_a_width_are_refused(code: Callable[[Tensor], Tensor]) -> None:
    net, x = randomized_network(lambda: Threshold(code)), torch.randn(5, 3)
    graph = easypruner.trace(net, x)
    masks = {'first': torch.arange(64) < 32}
    expected = r"depends on widths.* other numbers of units of 'first':"
    for attempt in (graph.check_cut, graph.plan, partial(easypruner.prune, net, graph=graph)):
        with pytest.raises(MaskError, match=expected):
            attempt(masks)
    assert net.first.out_features == 64


def test_the_groups_that_change_the_path_are_named() -> None:
    """Of many groups that lose units, a refusal names the two whose widths become equal."""
    widths = [16, 24, 32, 40, 48, 56]
    net, x = randomized_network(lambda: Shortcuts(3, *widths)), torch.randn(2, 3, 9)
    graph = easypruner.trace(net, x)
    counts = dict(zip(graph.groups, (15, 23, 31, 31, 47, 55), strict=True))
    masks = {name: torch.arange(graph.groups[name].size) < n for name, n in counts.items()}
    expected = r"other numbers of units of 'layers\.2', 'layers\.3': by"
    with pytest.raises(MaskError, match=expected):
        easypruner.prune(net, masks, graph=graph)
    masks['layers.3'][31] = True
    easypruner.prune(net, masks, graph=graph)
    assert net.layers[3].out_channels == 32


def test_a_layer_that_would_be_left_out_is_named() -> None:
    class Projected(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(3, 16), nn.Linear(16, 12)
            self.project, self.last = nn.Linear(16, 12), nn.Linear(12, 4)

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            y = self.second(x.relu())
            return self.last(y if y.shape == x.shape else y + self.project(x))

    net, x = randomized_network(Projected), torch.randn(5, 3)
    graph = easypruner.trace(net, x)
    masks = first_units(graph, 12)
    with pytest.raises(MaskError, match='matrix product in project does not run'):
        easypruner.prune(net, masks, graph=graph)
    easypruner.prune(net, first_units(graph, 11) | {'second': torch.arange(12) < 9}, graph=graph)


def test_further_calls_are_tried() -> None:
    class Decoder(Threshold):
        def forward(self, x: Tensor, deep: bool = False) -> Tensor:
            x = self.first(x)
            return self.last(x.tanh() if deep and x.shape[-1] > 5 else x)

    net, x = randomized_network(lambda: Decoder(torch.relu)), torch.randn(5, 3)
    masks: Mapping[str, Tensor] = {'first': torch.arange(64) < 5}
    deep = easypruner.trace(net, x, calls=[lambda model: model(x, deep=True)])
    with pytest.raises(MaskError, match='tanh in the model itself does not run'):
        easypruner.prune(net, masks, graph=deep)
    easypruner.prune(net, masks, graph=easypruner.trace(net, x))


def test_the_network_may_have_changed_since_its_trace() -> None:
    net, x = randomized_network(lambda: Shortcuts(3, 16, 24, 24)), torch.randn(2, 3, 9)
    graph = easypruner.trace(net, x)
    net.layers[0].register_forward_hook(lambda module, inputs, output: output.sigmoid() + output)
    net.to(torch.bfloat16).train()
    with pytest.raises(
        MaskError, match=r'add in the model itself runs more often than once at test_path\.py'
    ):
        easypruner.prune(net, first_units(graph, 16), graph=graph)
    assert net.training and net.head.in_features == 24
    easypruner.prune(net, first_units(graph, 20), graph=graph)
    assert net.head.in_features == 20


def test_a_loop_over_channels_may_run_less_often() -> None:
    class Parts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(3, 24), nn.Linear(24, 4)

        def forward(self, x: Tensor) -> Tensor:
            first = self.first(x)
            total = first.sum(-1, keepdim=True)
            for _ in range(max(first.shape[-1] - 18, 1)):
                total = total + total.mean()
            return self.last(first).relu() + total

    net, x = randomized_network(Parts), torch.randn(5, 3)
    graph = easypruner.trace(net, x)
    easypruner.prune(net, {'first': torch.arange(24) < 19}, graph=graph)
    assert net.first.out_features == 19


def test_einsum_may_multiply_otherwise_where_one_channel_is_left() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.query, self.key, self.last = nn.Linear(3, 8), nn.Linear(3, 8), nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            scores = torch.einsum('bic,bjc->bij', self.query(x), self.key(x))
            return self.last(scores @ x) if x.shape[1] > 1 else self.last(x)

    net, x = randomized_network(Attention), torch.randn(2, 5, 3)
    graph = easypruner.trace(net, x)
    masks = first_units(graph, 1)
    assert easypruner.verify(net, masks, x, graph=graph).error < 1e-9
    easypruner.prune(net, masks, graph=graph)
    assert net.query.out_features == 1
