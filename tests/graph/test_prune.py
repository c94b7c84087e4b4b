"""Pruning: equal to the full network with the removed channels' readers zeroed; all or nothing."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import easypruner
from easypruner.errors import CutError, MaskError, PluginError, TraceError
from easypruner.graph.recording.inventory import Inventory
from easypruner.graph.recording.snapshot import Snapshot
from easypruner.graph.verify import compute_outputs, relative_error
from easypruner.testing import example_inputs, random_masks, randomized_network
from easypruner.testing.networks import Depthwise, Grouped, Plain, Residual
from tests.helpers.networks import NETWORKS, Shared, TwoInputs, cut_randomly, traced_network


@pytest.mark.parametrize('build', NETWORKS)
@settings(max_examples=4, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**31), remove=st.floats(0, 1))
def test_pruned_equals_full_with_readers_zeroed(
    build: type[nn.Module], seed: int, remove: float
) -> None:
    model = randomized_network(build)
    result = easypruner.verify(
        model, random_masks(traced_network(build), 1 - remove, seed), example_inputs()
    )
    assert result.error < 1e-12 and not result.unchecked


@pytest.mark.parametrize('build', NETWORKS)
def test_removing_channels_changes_the_output(build: type[nn.Module]) -> None:
    """The comparison above could not fail on a network that ignores its channels."""
    model = randomized_network(build)
    before = compute_outputs(model, example_inputs())
    cut_randomly(model, seed=3, keep=0.1)
    assert relative_error(before, compute_outputs(model, example_inputs())) > 1e-3


def test_verify_notices_a_wrong_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    from easypruner.graph import graph as module

    right = module.cut

    def wrong(model: nn.Module, kept: dict, *rest: object) -> None:
        shifted = {p: (i + 1).clamp(max=int(i.max())) if p[1] == 1 else i for p, i in kept.items()}
        right(model, shifted, *rest)

    model = randomized_network(Plain)
    masks = {'body.0.0': torch.arange(8) % 2 == 0}
    assert easypruner.verify(model, masks, example_inputs()).error < 1e-12
    monkeypatch.setattr(module, 'cut', wrong)
    assert easypruner.verify(model, masks, example_inputs()).error > 1e-3


@pytest.mark.parametrize('build', NETWORKS)
def test_layers_know_their_new_widths(build: type[nn.Module]) -> None:
    model = randomized_network(build)
    cut_randomly(model, seed=1)
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            assert layer.weight.shape[:2] == (
                layer.out_channels, layer.in_channels // layer.groups,
            )  # fmt: skip
        elif isinstance(layer, nn.ConvTranspose2d):
            assert layer.weight.shape[:2] == (
                layer.in_channels, layer.out_channels // layer.groups,
            )  # fmt: skip
        elif isinstance(layer, nn.BatchNorm2d):
            assert layer.weight.shape == layer.running_mean.shape == (layer.num_features,)
        elif isinstance(layer, nn.Linear):
            assert layer.weight.shape == (layer.out_features, layer.in_features)


def test_groups_of_convolutions_after_a_cut() -> None:
    depthwise, grouped = randomized_network(Depthwise), randomized_network(Grouped)
    easypruner.prune(depthwise, {'expand.0': torch.arange(8) < 3}, example_inputs=example_inputs())
    easypruner.prune(grouped, {'stem.0': torch.arange(4) < 3}, example_inputs=example_inputs())
    assert depthwise.depthwise[0].groups == depthwise.multiplied[0].groups == 3
    assert grouped.grouped[0].groups == 3 and grouped.grouped[0].weight.shape[1] == 3


@pytest.mark.parametrize('kind', ['sgd', 'adam'])
def test_optimizer_state_follows(kind: str) -> None:
    model = randomized_network(Residual).train()
    optimizer = (
        torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
        if kind == 'sgd'
        else torch.optim.Adam(model.parameters(), 0.1)
    )
    for _ in range(2):
        optimizer.zero_grad()
        model(example_inputs()).square().mean().backward()
        optimizer.step()
    key = 'momentum_buffer' if kind == 'sgd' else 'exp_avg'
    weight, groups = model.stem[0].weight, [list(g['params']) for g in optimizer.param_groups]
    expected_state = optimizer.state[weight][key][:5].clone()
    expected_grad, expected_data = weight.grad[:5].clone(), weight.data[:5].clone()
    easypruner.prune(
        model, {'stem.0': torch.arange(8) < 5}, example_inputs=example_inputs(), optimizer=optimizer
    )
    assert model.stem[0].weight is weight
    assert [list(map(id, g['params'])) for g in optimizer.param_groups] == [
        list(map(id, g)) for g in groups
    ]
    assert torch.equal(optimizer.state[weight][key], expected_state)
    assert torch.equal(weight.grad, expected_grad) and torch.equal(weight.data, expected_data)
    optimizer.zero_grad()
    model(example_inputs()).square().mean().backward()
    optimizer.step()
    assert all(p.grad is None or p.grad.shape == p.shape for p in model.parameters())


def test_flags_dtype_layout_and_ties_are_kept() -> None:
    model = randomized_network(Shared).to(torch.float64).to(memory_format=torch.channels_last)
    model.stem[0].weight.requires_grad_(False)
    model.stem[1].eval()
    model.twice.train()
    masks = random_masks(traced_network(Shared), seed=2)
    easypruner.prune(model, masks, example_inputs=example_inputs().double())
    assert not model.stem[0].weight.requires_grad and model.stem[1].weight.requires_grad
    assert model.first.weight is model.second.weight
    assert all(p.dtype == torch.float64 for p in model.parameters())
    assert model.twice[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert model.twice[0].training and not model.stem[1].training


def test_a_model_without_gradients_is_pruned_all_the_same() -> None:
    model = randomized_network(Plain).requires_grad_(False)
    with torch.inference_mode():
        graph = easypruner.trace(model, example_inputs())
    easypruner.prune(model, {'body.0.0': torch.arange(8) < 5}, graph=graph)
    assert model.body[0][0].weight.shape[0] == 5
    assert not any(p.requires_grad for p in model.parameters())


def test_a_failing_cut_leaves_everything_as_it_was() -> None:
    class Stubborn(easypruner.LayerHandler):
        handles = (nn.Linear,)
        willing = True

        def resize(self, layer: nn.Module, shapes: object) -> None:
            if not self.willing:
                raise RuntimeError('no')

    from easypruner.graph.cutting.handlers import TORCH_HANDLERS

    model = randomized_network(Plain)
    before, widths = (
        copy.deepcopy(model.state_dict()),
        [m.out_channels for m in model.modules() if isinstance(m, nn.Conv2d)],
    )
    graph = easypruner.trace(model, example_inputs(), handlers=(Stubborn(), *TORCH_HANDLERS))
    Stubborn.willing = False
    with pytest.raises(PluginError, match=r'Stubborn fails on .*: no'):
        easypruner.prune(model, random_masks(graph), graph=graph)
    after = model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert widths == [m.out_channels for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert graph.groups['body.0.0'].size == 8


@pytest.mark.parametrize(
    ('masks', 'message'),
    [
        ({'body.0.0': torch.ones(7, dtype=torch.bool)}, 'has 7 entries; expected 8'),
        ({'body.0': torch.ones(8, dtype=torch.bool)}, "did you mean 'body"),
        ({'body.0.0': torch.zeros(8, dtype=torch.bool)}, 'removes all 8 units'),
        ({'body.0.0': torch.ones(8)}, 'a float32 tensor'),
        ({'body.0.0': [True] * 8}, 'is a list'),
    ],
)
def test_masks_that_do_not_fit_are_refused(masks: dict, message: str) -> None:
    model = randomized_network(Plain)
    with pytest.raises(MaskError, match=message):
        easypruner.prune(model, masks, example_inputs=example_inputs())
    assert model.body[0][0].out_channels == 8


@pytest.mark.parametrize('build', NETWORKS)
def test_the_graph_follows_the_cut(build: type[nn.Module]) -> None:
    """The updated graph is the one that tracing the pruned model finds."""
    model = randomized_network(build)
    graph = easypruner.trace(model, example_inputs())
    easypruner.prune(model, random_masks(graph, seed=4), graph=graph)
    fresh = easypruner.trace(model, example_inputs())
    assert graph.cost() == fresh.cost()
    for name, group in graph.groups.items():
        if group.size == 1:
            continue
        assert group.size == fresh.groups[name].size
        for kept, found in zip(group.members, fresh.groups[name].members, strict=True):
            assert (kept.param, kept.dim, kept.role) == (found.param, found.dim, found.role)
            assert torch.equal(kept.index, found.index)


def test_a_graph_of_another_instance_is_refused_and_stays_as_it_is() -> None:
    model = randomized_network(Plain)
    graph, other = easypruner.trace(model, example_inputs()), copy.deepcopy(model)
    masks = {'body.0.0': torch.arange(8) < 5}
    with pytest.raises(CutError, match=r'graph\.on\(model\)'):
        easypruner.prune(other, masks, graph=graph)
    assert other.body[0][0].out_channels == graph.groups['body.0.0'].size == 8
    easypruner.prune(other, masks, graph=graph.on(other))
    easypruner.prune(nn.DataParallel(model), masks, graph=graph)
    assert model.body[0][0].out_channels == graph.groups['body.0.0'].size == 5


def test_verify_reads_dictionaries_of_outputs() -> None:
    inputs = {'image': torch.randn(2, 3, 8, 8), 'depth': torch.randn(2, 1, 8, 8)}
    torch.manual_seed(0)
    model = TwoInputs().eval()
    result = easypruner.verify(model, {'both.0': torch.arange(7) < 4}, inputs)
    assert result.passed and result.removed_units == 3


class Masked(Plain):
    """Reads a random half of the positions in each pass, as masked autoencoders do."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x * (torch.rand(x.shape[-2:]) < 0.5))


def test_verify_draws_the_same_numbers_in_both_networks() -> None:
    model = randomized_network(Masked)
    assert not torch.equal(model(example_inputs()), model(example_inputs()))
    assert (
        easypruner.verify(model, random_masks(traced_network(Masked)), example_inputs()).error
        < 1e-12
    )
    before = torch.get_rng_state()
    compute_outputs(model, example_inputs())
    assert torch.equal(torch.get_rng_state(), before)


MASKS = {'body.0.0': torch.arange(8) < 5}


def without_head() -> nn.Module:
    model = randomized_network(Plain)
    nn.init.zeros_(model.head.weight)
    return model


def without_channels() -> nn.Module:
    """The outputs depend on the inputs, but not on the channels that are cut."""
    model = randomized_network(Residual)
    nn.init.zeros_(model.branch[0][1].weight)
    nn.init.zeros_(model.branch[0][1].bias)
    return model


@pytest.mark.parametrize(
    ('build', 'masks'),
    [(without_head, MASKS), (without_channels, {'branch.0.0': torch.arange(6) < 3})],
)
def test_outputs_that_no_channel_changes_verify_nothing(
    build: type[nn.Module], masks: dict
) -> None:
    result = easypruner.verify(build(), masks, example_inputs())
    assert result.constant and not result.passed and not result.failed


def test_channels_that_are_dead_alone_are_verified() -> None:
    """The removed channels change nothing, but those that are kept do."""
    model = randomized_network(Plain)
    with torch.no_grad():
        model.body[1][0].weight[:, 5:] = 0
    result = easypruner.verify(model, MASKS, example_inputs())
    assert result.passed and not result.constant and result.removed_units == 3


def test_masks_that_remove_nothing_are_not_reported_as_constant() -> None:
    assert easypruner.verify(randomized_network(Plain), {}, example_inputs()).passed


class Casting(Plain):
    """Takes bytes, and computes in single precision whatever it is given."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.float() / torch.full((1,), 255, dtype=torch.float32))


def test_verify_runs_in_double_precision_even_if_the_forward_casts() -> None:
    images = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    result = easypruner.verify(randomized_network(Casting), MASKS, images)
    assert result.error < 1e-12 and result.passed
    assert torch.get_default_dtype() == torch.float32


class Positioned(nn.Module):
    """Adds what a convolution makes of a table that the forward pass builds in single precision."""

    def __init__(self) -> None:
        super().__init__()
        self.width = 12
        self.stem, self.position = nn.Linear(4, 12), nn.Conv1d(1, 12, 1)
        self.head = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        table = torch.arange(x.shape[1], dtype=torch.float32)[None, None]
        x = self.stem(x) + self.position(table).transpose(1, 2)
        return self.head(x.reshape(-1, self.width))


def test_verify_traces_the_network_in_its_own_precision() -> None:
    model = randomized_network(Positioned)
    result = easypruner.verify(model, {'stem': torch.arange(12) % 2 > 0}, torch.randn(2, 5, 4))
    assert result.error < 1e-12 and result.passed


@pytest.mark.parametrize('dtype', [torch.float16, torch.float64])
def test_verify_takes_inputs_of_another_precision(dtype: torch.dtype) -> None:
    model = randomized_network(Plain).to(dtype)
    assert easypruner.verify(model, MASKS, example_inputs().float()).passed


class Counting(Plain):
    """Counts its passes, and returns other values in the next."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer('passes', torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        return super().forward(x) * self.passes


def test_verify_starts_every_pass_from_the_same_network() -> None:
    model = randomized_network(Counting)
    before = model.passes.clone()
    assert easypruner.verify(model, MASKS, example_inputs()).passed
    assert model.passes == before


def test_inputs_that_the_network_cannot_take_are_reported() -> None:
    """Linear layers do not mind the type on the meta device."""
    model = nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 3))
    with pytest.raises(TraceError, match='fails on the example inputs in double precision'):
        easypruner.verify(model, {'0': torch.arange(8) < 5}, torch.ones(2, 6, dtype=torch.int64))


def test_a_network_without_values_is_not_verified() -> None:
    with torch.device('meta'):
        model = Plain()
    with pytest.raises(
        TraceError, match=r"verify needs values, but 'body\.0\.0\.weight' of the Plain"
    ):
        easypruner.verify(model, MASKS, example_inputs())


def test_a_cut_looks_once_at_the_network_and_keeps_copies_of_what_it_changes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = nn.Sequential(*(nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8)) for _ in range(6)))
    graph = easypruner.trace(model, torch.ones(2, 8))
    inventories, kept_copies = [], []
    take, copy_of = Inventory.__init__, Snapshot.__init__
    monkeypatch.setattr(
        Inventory, '__init__', lambda self, net: (inventories.append(net), take(self, net))[1]
    )
    monkeypatch.setattr(
        Snapshot,
        '__init__',
        lambda self, modules, **options: (
            kept_copies.extend(own := list(modules)),
            copy_of(self, own, **options),
        )[1],
    )
    easypruner.prune(model, {'2.0': torch.arange(8) > 2}, graph=graph)
    assert inventories == [model]
    assert kept_copies == [model[2][0], model[2][1]]


class Spectral(nn.Module):
    """Mixes the lowest frequencies of its channels by a complex weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv1d(2, 8, 1), nn.Conv1d(6, 2, 1)
        self.weight = nn.Parameter(torch.randn(8, 6, 3, dtype=torch.complex64))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        lowest = torch.fft.rfft(self.first(x))[..., :3]
        mixed = torch.einsum('bit,iot->bot', lowest, self.weight)
        return self.last(torch.fft.irfft(mixed, n=x.shape[-1])), mixed.sum(1)


def test_complex_weights_are_verified_in_double_precision() -> None:
    net, x = randomized_network(Spectral), torch.randn(2, 2, 8)
    graph = easypruner.trace(net, x)
    assert [group.size for group in graph.groups.values()] == [8, 6]
    masks = {name: torch.arange(group.size) % 2 == 0 for name, group in graph.groups.items()}
    assert easypruner.verify(net, masks, x, graph=graph).error < 1e-12
    easypruner.prune(net, masks, graph=graph)
    net(x)[0].sum().backward()


def test_outputs_that_differ_in_their_imaginary_parts_differ() -> None:
    one, other = torch.tensor([3 + 4j]), torch.tensor([3 - 4j])
    assert relative_error([one], [other]) == pytest.approx(8 / 5)
