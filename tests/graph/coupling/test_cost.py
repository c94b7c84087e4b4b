"""Cost: exact multiply-adds, parameters and activations, for any masks, without rebuilding."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

import easypruner
from easypruner.errors import MaskError
from easypruner.graph import Cost
from easypruner.testing import example_inputs, random_masks, randomized_network
from easypruner.testing.networks import Plain, block
from tests.helpers.networks import NETWORKS, Shared, TwoInputs


class NewElements(TorchDispatchMode):
    """Counts the elements that operations on real tensors write to memory of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {address(t) for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        result = func(*args, **(kwargs or {}))
        outputs = [t for t in tree_leaves(result) if isinstance(t, Tensor)]
        self.count += sum(t.numel() for t in outputs if address(t) not in given)
        return result


def address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def measured(model: nn.Module) -> Cost:
    """Return what running the model costs, by torch's own counter and by watching its memory."""
    inputs = example_inputs()
    with torch.no_grad():
        with FlopCounterMode(display=False) as counter:
            model(inputs)
        with NewElements() as elements:
            model(inputs)
    flops = counter.get_total_flops()
    assert flops % 2 == 0
    return Cost(flops // 2, sum(p.numel() for p in model.parameters()), elements.count)


def total(costs: dict[str, Cost]) -> Cost:
    rows = [(cost.macs, cost.params, cost.activations) for cost in costs.values()]
    return Cost(*map(sum, zip(*rows, strict=True)))


@pytest.mark.parametrize('build', NETWORKS)
class TestEveryNetwork:
    def test_cost_is_what_is_measured_before_and_after_pruning(
        self, build: type[nn.Module]
    ) -> None:
        model = randomized_network(build)
        graph = easypruner.trace(model, example_inputs())
        assert graph.cost() == measured(model)
        masks = random_masks(graph, seed=5)
        predicted = graph.cost(masks)
        easypruner.prune(model, masks, graph=graph)
        assert predicted == measured(model)
        assert graph.cost() == predicted

    def test_layers_share_the_cost(self, build: type[nn.Module]) -> None:
        model = randomized_network(build)
        graph = easypruner.trace(model, example_inputs())
        masks = random_masks(graph, seed=6)
        assert total(graph.layer_costs()) == graph.cost()
        predicted = graph.layer_costs(masks)
        assert total(predicted) == graph.cost(masks)
        easypruner.prune(model, masks, graph=graph)
        assert easypruner.trace(model, example_inputs()).layer_costs() == predicted

    def test_a_groups_cost_is_the_difference_it_makes(self, build: type[nn.Module]) -> None:
        model = randomized_network(build)
        graph = easypruner.trace(model, example_inputs())
        masks = random_masks(graph, seed=7)
        before, costs = graph.cost(masks), graph.group_costs(masks)
        assert list(costs) == list(graph.groups)
        for name, group in graph.groups.items():
            after = graph.cost({**masks, name: torch.zeros(group.size, dtype=torch.bool)})
            assert total({'goes': costs[name], 'stays': after}) == before


@pytest.mark.slow
@pytest.mark.parametrize('name', ['densenet121', 'shufflenet_v2_x1_0', 'vit_b_16', 'swin_t'])
def test_the_predicted_cost_is_that_of_a_new_trace_of_the_pruned_model(name: str) -> None:
    torch.manual_seed(0)
    model = torchvision.models.get_model(name, weights=None)
    inputs = torch.zeros(2, 3, 224, 224)
    graph = easypruner.trace(model, inputs)
    masks = {name: torch.arange(group.size) % 3 < 2 for name, group in graph.groups.items()}
    predicted = graph.cost(masks)
    assert predicted != graph.cost()
    easypruner.prune(model, masks, graph=graph)
    assert easypruner.trace(model, inputs).cost() == predicted


def test_by_hand() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.Flatten(), nn.Linear(4 * 36, 10))
    graph = easypruner.trace(model, torch.zeros(1, 3, 8, 8))
    conv = Cost(macs=36 * 4 * 3 * 9, params=4 * 27, activations=4 * 36)
    linear = Cost(macs=144 * 10, params=144 * 10 + 10, activations=10)
    assert graph.layer_costs() == {'0': conv, '2': linear}
    assert graph.cost() == total({'0': conv, '2': linear})
    assert graph.group_costs() == {'0': Cost(conv.macs + 1440, conv.params + 1440, 4 * 36)}
    one = graph.cost({'0': torch.tensor([True, False, False, False])})
    assert one == Cost(macs=36 * 27 + 36 * 10, params=27 + 360 + 10, activations=36 + 10)


def test_an_operation_in_place_makes_nothing() -> None:
    kinds = (nn.ReLU(), nn.ReLU(inplace=True))
    made = [
        easypruner.trace(nn.Sequential(nn.Conv2d(3, 4, 1), kind), example_inputs())
        .cost()
        .activations
        for kind in kinds
    ]
    assert made == [2 * 2 * 4 * 64, 2 * 4 * 64]


def test_macs_and_activations_grow_with_the_batch() -> None:
    one, three = (easypruner.trace(Plain(), example_inputs(n)).cost() for n in (1, 3))
    assert three == Cost(3 * one.macs, one.params, 3 * one.activations)


def test_a_tied_weight_counts_where_it_is_used_first() -> None:
    costs = easypruner.trace(Shared(), example_inputs()).layer_costs()
    assert costs['first'].params == 8 * 8 + 8
    assert costs['second'].params == 8
    assert costs['second'].macs == costs['first'].macs > 0


def test_parameters_that_nothing_reads_count_as_well() -> None:
    model = Plain()
    model.spare = nn.Linear(3, 2)
    assert easypruner.trace(model, example_inputs()).layer_costs()['spare'] == Cost(0, 3 * 2 + 2)


def test_operations_outside_any_layer_count_for_the_model_itself() -> None:
    graph = easypruner.trace(
        TwoInputs(), {'image': example_inputs(), 'depth': example_inputs()[:, :1]}
    )
    joined_and_pooled = Cost(0, 0, 2 * 10 * 64 + 2 * 7)
    assert graph.layer_costs()[''] == joined_and_pooled


def test_the_model_itself_may_be_the_layer() -> None:
    costs = easypruner.trace(nn.Conv2d(3, 4, 1, bias=False), example_inputs()).layer_costs()
    assert costs == {'': Cost(2 * 64 * 12, 12, 2 * 4 * 64)}


def test_a_model_without_groups() -> None:
    graph = easypruner.trace(block(3, 1), example_inputs())
    assert not graph.groups and graph.group_costs() == {}
    assert graph.cost({}) == total(graph.layer_costs())


class TestRefusals:
    def test_an_unknown_group(self) -> None:
        graph = easypruner.trace(Plain(), example_inputs())
        with pytest.raises(MaskError, match='did you mean'):
            graph.cost({'body.0.1': torch.ones(8, dtype=torch.bool)})

    @pytest.mark.parametrize(
        'mask', [torch.ones(8), torch.ones(7).bool(), torch.ones(8, 1).bool()], ids=str
    )
    def test_a_mask_of_another_shape_or_type(self, mask: Tensor) -> None:
        graph = easypruner.trace(Plain(), example_inputs())
        with pytest.raises(MaskError, match=r"'body.0.0'.*expected torch.bool of shape \(8,\)"):
            graph.layer_costs({'body.0.0': mask})


class ChannelsInBatch(nn.Module):
    """One layer for each channel, because a reshape has moved the channels into the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 1)
        self.single = nn.Conv2d(1, 1, 3, padding=1)
        self.row = nn.Linear(6, 6)
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        n, _, h, w = x.shape
        x = self.single(x.reshape(-1, 1, h, w))
        x = self.row(x.reshape(-1, w)).reshape(n, -1, h, w)
        return self.head(x)


def test_channels_in_the_batch_count() -> None:
    model = ChannelsInBatch().eval()
    image = torch.rand(2, 3, 5, 6)
    graph = easypruner.trace(model, image)
    masks = {'stem': torch.arange(8) < 5}
    predicted = graph.cost(masks)
    easypruner.prune(model, masks, graph=graph)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(image)
    assert predicted.macs * 2 == counter.get_total_flops() == graph.cost().macs * 2
