"""Zero: filters are set to zero and may recover."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from easypruner import Masks, trace
from easypruner.engine.checkpoint import read_weights
from easypruner.strategies.measures.zeroing import zero
from easypruner.testing import example_inputs, randomized_network
from easypruner.testing.networks import Plain, Residual
from tests.helpers.networks import NETWORKS
from tests.helpers.tiny import prune, summary, tiny_config, write_config


def half(model: nn.Module) -> Masks:
    """Return masks that remove every second unit of each group."""
    groups = trace(model, example_inputs()).groups.items()
    return Masks({name: torch.arange(group.size) % 2 == 0 for name, group in groups})


def zeroed(model: nn.Module, masks: Masks, norms: bool = False) -> nn.Module:
    zero(trace(model, example_inputs()), masks, norms)
    return model


@pytest.mark.parametrize('norms', [False, True])
def test_by_hand(norms: bool) -> None:
    model = randomized_network(Residual)
    before = {name: tensor.clone() for name, tensor in model.named_parameters()}
    gone = torch.tensor([1, 6])
    mask = torch.ones(8, dtype=torch.bool).index_fill(0, gone, False)
    zeroed(model, Masks({'stem.0': mask}), norms)
    # The sum of the two branches couples these layers.
    filters = ['stem.0.weight', 'branch.1.weight']
    others = ['branch.1.bias', 'stem.1.weight', 'stem.1.bias', 'branch.2.weight', 'branch.2.bias']
    for name, tensor in model.named_parameters():
        expected = before[name].clone()
        if name in filters or (norms and name in others):
            expected[gone] = 0
        assert torch.equal(tensor, expected), name


@pytest.mark.parametrize('network', NETWORKS, ids=lambda network: network.__name__)
def test_exactly_the_filters_to_be_removed_are_zero(network: type[nn.Module]) -> None:
    model = randomized_network(network)
    graph = trace(model, example_inputs())
    masks = half(model)
    zero(graph, masks)
    for name, mask in masks.items():
        for member in graph.groups[name].producers:
            if member.role == 'out' and isinstance(graph.parameter(member.param), nn.Parameter):
                rows = graph.parameter(member.param).movedim(member.dim, 0)
                assert not rows[member.index[~mask].flatten()].any()
                assert rows[member.index[mask].flatten()].any()


def gradients(model: nn.Module, channel: int) -> list[Tensor]:
    """Return the gradients of the filter of a channel in the first layer of Plain, in training."""
    model.train()
    nn.functional.cross_entropy(model(example_inputs(8)), torch.arange(8) % 5).backward()
    conv, norm = model.body[0][0], model.body[0][1]
    return [p.grad[channel] for p in (conv.weight, norm.weight, norm.bias)]


def test_a_filter_can_recover_unless_its_norm_is_zero_too() -> None:
    model = randomized_network(Plain)
    nn.init.constant_(model.body[0][1].bias, 0.1)
    mask = torch.arange(8) != 3
    alone = zeroed(copy.deepcopy(model), Masks({'body.0.0': mask}))
    assert gradients(alone, 3)[0].abs().max() > 0
    both = zeroed(copy.deepcopy(model), Masks({'body.0.0': mask}), norms=True)
    assert not any(gradient.any() for gradient in gradients(both, 3))


@pytest.mark.parametrize('dim', [0, 1, None])
def test_weight_norm(dim: int | None) -> None:
    model = randomized_network(Plain)
    before = model.body[0][0].weight.detach().clone()
    parametrizations.weight_norm(model.body[0][0], dim=dim)
    first = next(iter(trace(model, example_inputs()).groups))
    zeroed(model, Masks({first: torch.arange(8) != 3}))
    before[3] = 0
    torch.testing.assert_close(model.body[0][0].weight.detach(), before)
    assert all(p.isfinite().all() for p in model.parameters())


def soft(steps: int = 2) -> list[dict[str, Any]]:
    select = dict(type='SelectMask', source=dict(type='L2Norm', budget=dict(type='Macs', keep=0.5)))
    each = [dict(type='Train', epochs=1), select, dict(type='Zero', row='zeroed')]
    return [
        dict(type='Iterative', steps=steps, schedule='constant', each=each),
        dict(type='Prune'),
        dict(type='Report'),
    ]


def test_soft_filter_pruning(tmp_path: Path) -> None:
    config = write_config(tmp_path, tiny_config(stages=soft()))
    assert prune(config, tmp_path / 'run') == 0
    run = tmp_path / 'run'
    weights = [read_weights(run / f'{stage}/weights.pth') for stage in ('02_zero_1', '03_train_2')]
    name = 'backbone.stages.0.0.conv1'
    masks = Masks.load(run / '01_select_mask_1' / 'masks.safetensors')
    gone = ~masks[name]
    assert gone.any()
    # The filters were set to zero, not cut, and have recovered a little in training.
    assert not weights[0][f'{name}.weight'][gone].any()
    assert weights[1][f'{name}.weight'].shape == weights[0][f'{name}.weight'].shape
    assert weights[1][f'{name}.weight'][gone].any()
    rows = {row['name']: row for row in summary(run)['rows']}
    assert list(rows) == ['zeroed_1', 'zeroed', 'pruned']
    assert rows['zeroed']['macs'] == rows['zeroed_1']['macs']
    assert rows['pruned']['macs'] <= 0.5 * rows['zeroed']['macs']
    # The cut channels are those that the last step set to zero.
    assert Masks.load(run / 'masks.safetensors') == Masks.load(
        run / '04_select_mask_2' / 'masks.safetensors'
    )


def test_missing_masks_are_reported_before_the_run(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    stages = [dict(type='Train'), dict(type='Zero'), dict(type='Report')]
    assert prune(write_config(tmp_path, tiny_config(stages=stages)), tmp_path / 'run') == 2
    assert 'stages[1]: Zero needs masks' in capfd.readouterr().err
