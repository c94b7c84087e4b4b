"""Tracing: the coupling, the frozen dimensions and their reasons; the model is unchanged."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import easypruner
from easypruner.errors import TraceError
from easypruner.testing import example_inputs, randomized_network
from easypruner.testing.networks import Dense, Depthwise, Flattened, Grouped, Plain, Residual
from tests.helpers.networks import NETWORKS, Shared, Shuffled, TwoInputs


def members(graph: easypruner.graph.ChannelGraph, name: str) -> set[tuple[str, int, str]]:
    return {(m.param, m.dim, m.role) for m in graph.groups[name].members}


def test_a_residual_sum_couples_its_layers() -> None:
    graph = easypruner.trace(Residual(), example_inputs())
    assert set(graph.groups) == {'stem.0', 'branch.0.0'}
    assert graph.groups['stem.0'].size == 8
    assert members(graph, 'stem.0') >= {
        ('stem.0.weight', 0, 'out'),
        ('stem.1.weight', 0, 'out'),
        ('stem.1.running_var', 0, 'out'),
        ('branch.0.0.weight', 1, 'in'),
        ('branch.1.weight', 0, 'out'),
        ('branch.1.bias', 0, 'out'),
        ('branch.2.weight', 0, 'out'),
        ('head.weight', 1, 'in'),
    }


def test_a_concatenation_keeps_its_parts_apart() -> None:
    graph = easypruner.trace(Dense(), example_inputs())
    reads = {m.dim: m.index for m in graph.groups['b.0'].members if m.param == 'c.0.weight'}
    assert reads[1].flatten().tolist() == [7, 8, 9, 10, 11, 12]


def test_a_flattened_map_is_read_position_by_position() -> None:
    graph = easypruner.trace(Flattened(), example_inputs())
    reader = next(m for m in graph.groups['body.0.0'].members if m.param == 'head.0.weight')
    expected = torch.arange(6 * 16).reshape(6, 16)
    assert torch.equal(reader.index, expected)


def test_a_depthwise_multiplier_removes_whole_groups() -> None:
    graph = easypruner.trace(Depthwise(), example_inputs())
    group = graph.groups['expand.0']
    assert group.size == 8
    wide = next(m for m in group.members if m.param == 'multiplied.0.weight')
    assert wide.index.shape == (8, 2)


def test_a_grouped_convolution_loses_the_same_positions_in_every_group() -> None:
    graph = easypruner.trace(Grouped(), example_inputs())
    stem = next(m for m in graph.groups['stem.0'].members if m.param == 'stem.0.weight')
    assert torch.equal(stem.index, torch.tensor([[j, j + 4, j + 8] for j in range(4)]))


def test_a_shuffle_couples_the_halves() -> None:
    graph = easypruner.trace(Shuffled(), example_inputs())
    stem = next(m for m in graph.groups['stem.0'].members if m.param == 'stem.0.weight')
    assert torch.equal(stem.index.sort(dim=1).values, torch.tensor([[j, j + 6] for j in range(6)]))


def test_tied_weights_stay_one_parameter() -> None:
    graph = easypruner.trace(Shared(), example_inputs())
    names = {m.param for group in graph.groups.values() for m in group.members}
    assert 'first.weight' in names and 'second.weight' not in names


def test_several_inputs_and_outputs() -> None:
    inputs = {'image': torch.randn(1, 3, 8, 8), 'depth': torch.randn(1, 1, 8, 8)}
    by_name = easypruner.trace(TwoInputs(), inputs)
    by_position = easypruner.trace(TwoInputs(), tuple(inputs.values()))
    assert list(by_name.groups) == list(by_position.groups) == ['image.0', 'depth.0', 'both.0']


@pytest.mark.parametrize('build', NETWORKS)
def test_every_dimension_is_in_a_group_or_frozen_with_a_reason(build: type[nn.Module]) -> None:
    model = build()
    graph = easypruner.trace(model, example_inputs())
    grouped: dict[tuple[str, int], int] = {}
    for group in graph.groups.values():
        for member in group.members:
            key = (member.param, member.dim)
            grouped[key] = grouped.get(key, 0) + member.index.unique().numel()
    frozen: dict[tuple[str, int], int] = {}
    for entry in graph.frozen:
        assert entry.reason
        frozen[entry.param, entry.dim] = frozen.get((entry.param, entry.dim), 0) + entry.channels
    for name, parameter in model.named_parameters():
        for dim, size in enumerate(parameter.shape):
            assert grouped.get((name, dim), 0) + frozen.get((name, dim), 0) == size, (name, dim)


def test_outputs_and_inputs_are_frozen_with_a_reason() -> None:
    graph = easypruner.trace(Plain(), example_inputs())
    reasons = {(f.param, f.dim): f.reason for f in graph.frozen}
    assert 'output of the model' in reasons['head.weight', 0]
    assert 'input of the model' in reasons['body.0.0.weight', 1]


def test_an_operation_without_a_rule_freezes_its_inputs_and_is_named() -> None:
    class Inverse(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 1)
            self.head = nn.Linear(8, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.linalg.inv(self.conv(x)).mean((2, 3)))

    graph = easypruner.trace(Inverse(), example_inputs())
    assert not graph.groups
    reason = next(f.reason for f in graph.frozen if (f.param, f.dim) == ('conv.weight', 0))
    assert 'linalg_inv' in reason


def test_the_model_is_left_as_it_was() -> None:
    class Stateful(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
            self.calls, self.log = 0, ['start']
            self.cached: Tensor | None = None

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            self.log.append('forward')
            self.cached = self.conv(x)
            return self.norm(self.cached)

    model = Stateful()
    model.norm.eval()
    model.conv.weight.requires_grad_(False)
    before = {
        name: (id(t), t._version, t.clone()) for name, t in model.state_dict(keep_vars=True).items()
    }
    easypruner.trace(model, example_inputs())
    assert model.training and model.conv.training and not model.norm.training
    assert (model.calls, model.log, model.cached) == (0, ['start'], None)
    assert not model.conv.weight.requires_grad and model.conv.bias.requires_grad
    for name, tensor in model.state_dict(keep_vars=True).items():
        identity, version, content = before[name]
        assert (id(tensor), tensor._version) == (identity, version)
        assert torch.equal(tensor, content)
    assert not nn.modules.module._global_forward_hooks
    assert not nn.modules.module._global_forward_pre_hooks


def test_a_model_that_needs_values_is_traced_on_real_tensors() -> None:
    class Dependent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(x)
            return self.head(x if x.sum().item() > 0 else -x)

    assert list(easypruner.trace(Dependent(), example_inputs()).groups) == ['conv']


def test_a_model_with_a_tensor_in_an_attribute_is_traced() -> None:
    class Normalizing(Plain):
        def __init__(self) -> None:
            super().__init__()
            self.mean = torch.full((3, 1, 1), 0.5)

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x - self.mean)

    assert list(easypruner.trace(Normalizing(), example_inputs()).groups) == [
        'body.0.0',
        'body.1.0',
    ]


class TwoHeads(Plain):
    """Has a second head, behind its first layer."""

    def __init__(self) -> None:
        super().__init__()
        self.extra = nn.Linear(8, 5)

    def first(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the output of the last head, and what the second one reads."""
        middle = self.body[0](x)
        return self.head(self.body[2](self.body[1](middle)).flatten(1)), middle.mean((2, 3))


def test_an_auxiliary_head_that_runs_in_training_only_is_coupled() -> None:
    class Auxiliary(TwoHeads):
        def forward(self, x: Tensor) -> Tensor:
            result, middle = self.first(x)
            return result + self.extra(middle) if self.training else result

    model = randomized_network(Auxiliary)
    graph = easypruner.trace(model, example_inputs(1))
    assert ('extra.weight', 1, 'in') in members(graph, 'body.0.0')
    easypruner.prune(model, {'body.0.0': torch.arange(8) < 5}, graph=graph)
    assert model.train()(example_inputs()).shape == (2, 5)


def test_what_evaluation_computes_and_drops_stays_as_training_returns_it() -> None:
    class Supervised(TwoHeads):
        def forward(self, x: Tensor) -> Tensor:
            result, middle = self.first(x)
            extra = self.extra(middle)
            return torch.stack([result, extra]) if self.training else result

    model = randomized_network(Supervised)
    graph = easypruner.trace(model, example_inputs(1))
    assert ('extra.weight', 1, 'in') in members(graph, 'body.0.0')
    masks = {n: torch.arange(group.size) < 2 for n, group in graph.groups.items()}
    easypruner.prune(model, masks, graph=graph)
    assert model.train()(example_inputs()).shape == (2, 2, 5)


def test_mismatched_inputs_are_an_error_with_the_reason() -> None:
    with pytest.raises(TraceError, match='Plain fails on the given example inputs'):
        easypruner.trace(Plain(), torch.randn(1, 4, 8, 8))


def test_a_lazy_module_is_refused() -> None:
    with pytest.raises(TraceError, match='no shape yet'):
        easypruner.trace(nn.LazyConv2d(4, 3), example_inputs())


def test_nothing_but_empty_tensors_may_be_joined() -> None:
    class Collecting(Plain):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return super().forward(x), torch.cat([x.new_zeros(0), x.new_zeros(0)])

    assert list(easypruner.trace(Collecting(), example_inputs()).groups) == ['body.0.0', 'body.1.0']


class Averaged(nn.Module):
    """Rounds to its nearest codes, of which it keeps moving averages in training."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 5, 1)
        self.register_buffer('codes', torch.randn(8, 12))
        self.register_buffer('sums', self.codes.clone())

    def forward(self, x: Tensor) -> Tensor:
        rows = self.first(x).movedim(1, -1)
        flat = rows.reshape(-1, rows.shape[-1])
        chosen = (self.codes.pow(2).sum(0) - 2 * flat @ self.codes).argmin(1)
        if self.training:
            picked = nn.functional.one_hot(chosen, 12).to(flat.dtype)
            self.sums.mul_(0.9).add_(0.1 * flat.t() @ picked)
        return self.last(
            nn.functional.embedding(chosen, self.codes.t()).view_as(rows).movedim(-1, 1)
        )


def test_buffers_that_only_training_reads_are_cut_with_the_others() -> None:
    net, x = randomized_network(Averaged), torch.rand(2, 3, 4, 4)
    graph = easypruner.trace(net, x)
    assert {'codes', 'sums'} <= {member.param for member in graph.groups['first'].members}
    easypruner.prune(net, {'first': torch.arange(8) % 2 > 0}, graph=graph)
    with torch.no_grad():
        net.train()(x)
    assert net.sums.shape == net.codes.shape == (4, 12)
