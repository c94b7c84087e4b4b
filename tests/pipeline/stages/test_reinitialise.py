"""Reinitialise: no earlier weight is left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from easypruner.engine.checkpoint import read_weights
from easypruner.graph import NetworkRecord
from easypruner.pipeline.stages.reinitialise import fresh_network
from easypruner.registry import MODELS
from tests.helpers.tiny import prune, summary, tiny_config, write_config


@MODELS.register_module()
class Bare(nn.Module):
    """A neck with parameters that no initialiser of MMEngine knows."""

    def __init__(self, drawn: bool = True, init_cfg: Any = None) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.randn(16) if drawn else torch.arange(16.0))
        self.scale = nn.Parameter(torch.ones(16))

    def forward(self, x: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (x[-1].mean((2, 3)) * self.scale + self.shift,)


def stages() -> list[dict[str, Any]]:
    source = dict(type='L1Norm', budget=dict(type='Macs', keep=0.5))
    return [
        dict(type='Train', name='baseline', epochs=1, row='baseline'),
        dict(type='SelectMask', source=source),
        dict(type='Prune'),
        dict(type='Reinitialise', row='scratch'),
        dict(type='Report'),
    ]


def config(**changes: Any) -> dict[str, Any]:
    model = tiny_config()['model'] | dict(neck=dict(type='easypruner.Bare'))
    return tiny_config(**dict(model=model, stages=stages()) | changes)


def weights_of(folder: Path, content: dict[str, Any], *arguments: str) -> dict[str, Tensor]:
    assert prune(write_config(folder, content), folder / 'run', *arguments) == 0
    return read_weights(folder / 'run' / '03_reinitialise' / 'weights.pth')


def drawn(content: dict[str, Any], *entropy: int) -> dict[str, Tensor]:
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return fresh_network(Config(content), NetworkRecord(), (), *entropy).state_dict()


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> set[str]:
    """Return the names of tensors with common rows, except for constants."""
    return {
        name
        for name, tensor in one.items()
        if tensor.dim() and (tensor != tensor.flatten()[0]).any()
        if torch.isin(tensor, other[name]).any()
    }


def test_no_weight_survives_and_all_have_the_pruned_shape(tmp_path: Path) -> None:
    new = weights_of(tmp_path, config())
    run = tmp_path / 'run'
    before = read_weights(run / '02_prune' / 'weights.pth')
    assert {n: t.shape for n, t in new.items()} == {n: t.shape for n, t in before.items()}
    assert same(new, before) == set()
    assert same(new, read_weights(run / 'initial.pth')) == set()
    # Statistics of norms are those of a fresh network.
    for name, tensor in new.items():
        for end, value in (('running_mean', 0), ('running_var', 1), ('num_batches_tracked', 0)):
            assert not name.endswith(end) or (tensor == value).all()
    rows = {row['name']: row for row in summary(run)['rows']}
    assert rows['scratch']['macs'] == rows['pruned']['macs'] < rows['baseline']['macs']


def test_weights_are_drawn_for_the_pruned_widths(tmp_path: Path) -> None:
    """Kaiming's deviation is sqrt(2 / fan out), with the fan after the cut."""
    backbone = dict(type='easypruner.ResNetCifar', depth=8, width=16, in_channels=1)
    head = dict(type='LinearClsHead', num_classes=10, in_channels=64)
    model = tiny_config()['model'] | dict(backbone=backbone, head=head)
    new = weights_of(tmp_path, config(model=model))
    checked = 0
    for tensor in new.values():
        if tensor.dim() == 4 and tensor.numel() > 2000:
            fan = tensor.shape[0] * tensor[0, 0].numel()
            assert tensor.std().item() == pytest.approx((2 / fan) ** 0.5, rel=0.06)
            checked += 1
    assert checked > 3


@MODELS.register_module()
class Layers(nn.Module):
    """A neck of torch's layers, one of which its code initializes in another way."""

    def __init__(self, init_cfg: Any = None) -> None:
        super().__init__()
        self.plain, self.own = nn.Conv2d(64, 64, 3, padding=1), nn.Conv2d(64, 64, 3, padding=1)
        self.own.weight.data.normal_(0, 0.5)
        self.identity = nn.Parameter(torch.eye(3).flatten())

    def forward(self, x: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        inner = torch.relu(self.own(torch.relu(self.plain(x[-1]))))
        return (inner.mean((2, 3)) * self.identity.sum(),)


def test_layers_that_only_torch_initialises_are_drawn_for_the_pruned_widths(tmp_path: Path) -> None:
    """Torch draws uniformly up to 1 / sqrt(fan in); values that the code drew stay the same."""
    backbone = dict(type='easypruner.ResNetCifar', depth=8, width=16, in_channels=1)
    head = dict(type='LinearClsHead', num_classes=10, in_channels=64)
    parts = dict(backbone=backbone, neck=dict(type='easypruner.Layers'), head=head)
    content = config(model=tiny_config()['model'] | parts)
    content['stages'][1]['source'] = dict(type='Random', budget=dict(type='Ratio', keep=0.25))
    new = weights_of(tmp_path, content)
    plain = new['neck.plain.weight']
    fan = plain.shape[1] * 9
    assert plain.shape[1] < 32
    bound = fan**-0.5
    assert 0.98 * bound < plain.abs().max().item() <= bound
    assert new['neck.own.weight'].std().item() == pytest.approx(0.5, rel=0.06)
    assert new['neck.identity'].unique().tolist() in ([0.0], [1.0], [0.0, 1.0])


def test_the_seed_decides() -> None:
    one, again, other = (drawn(config(), *seeds) for seeds in ((0, 3), (0, 3), (1, 3)))
    assert all(torch.equal(tensor, again[name]) for name, tensor in one.items())
    assert same(one, other) == set()


@pytest.mark.parametrize('inside_a_list', [False, True])
def test_an_init_cfg_that_loads_weights_is_ignored(inside_a_list: bool, tmp_path: Path) -> None:
    pretrained = drawn(config(), 9)
    torch.save(pretrained, tmp_path / 'pretrained.pth')
    load = dict(type='Pretrained', checkpoint=str(tmp_path / 'pretrained.pth'), prefix='backbone.')
    content = config()
    content['model']['backbone']['init_cfg'] = [load] if inside_a_list else load
    assert same(drawn(content, 1), pretrained) == set()


def test_weights_that_no_seed_changes_are_an_error(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    content = config()
    content['model']['neck']['drawn'] = False
    assert prune(write_config(tmp_path, content), tmp_path / 'run') == 2
    message = capfd.readouterr().err
    assert 'stages[3]' in message and "'neck.shift'" in message and 'neck.scale' not in message
    assert not (tmp_path / 'run').exists()
