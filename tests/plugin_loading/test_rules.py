"""Rules for operations that plugins contribute, by registering them when they are imported."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import easypruner
from easypruner.cli.main import main
from easypruner.errors import PluginError
from easypruner.graph.coupling.rules import registration
from easypruner.plugins import load_plugins
from tests.helpers.plugin_files import write_plugin


# PyTorch 2.4 does not derive a schema from annotations that are strings.
@torch.library.custom_op(
    'eprules::scale', mutates_args=(), schema='(Tensor x, Tensor factors) -> Tensor'
)
def scale(x: Tensor, factors: Tensor) -> Tensor:
    """Multiply each channel by a factor."""
    return x * factors.view(-1, 1, 1)


@scale.register_fake
def _(x: Tensor, factors: Tensor) -> Tensor:
    return torch.empty_like(x)


class Scaled(nn.Module):
    """Two convolutions, and an operation of its own between them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1)
        self.factors = nn.Parameter(torch.rand(8))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(scale(self.first(x), self.factors))


RULE = """
from easypruner.graph import rule

@rule('eprules::scale')
def couple_scale(coupling, operation):
    x, factors = operation.args
    batch, channels, height, width = coupling.axes_of(x)
    channels = coupling.couple(channels, coupling.axes_of(factors)[0])
    coupling.assign(operation.outputs[0], (batch, channels, height, width))
"""
IMAGES = torch.rand(1, 3, 6, 6)


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let a test register rules that are gone afterwards."""
    monkeypatch.setattr(registration, '_RULES', dict(registration._RULES))
    yield


def test_a_plugin_may_contribute_nothing_but_a_rule(tmp_path: Path) -> None:
    assert not easypruner.trace(Scaled(), IMAGES).groups
    file = write_plugin(tmp_path, 'scaling.py', RULE)
    (info,) = [p for p in load_plugins([tmp_path]).plugins if p.file == str(file)]
    assert (info.hooks, info.rules) == ((), ('eprules::scale',))
    net = Scaled()
    graph = easypruner.trace(net, IMAGES)
    assert 'factors' in {member.param for member in graph.groups['first'].members}
    masks = {'first': torch.arange(8) % 3 > 0}
    assert easypruner.verify(net, masks, IMAGES, graph=graph).passed


def test_it_is_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_plugin(tmp_path, 'scaling.py', RULE)
    assert main(['plugins', '--plugins', str(tmp_path)]) == 0
    assert "eprules::scale: plugin 'scaling'," in capsys.readouterr().out
    assert main(['plugins', '--plugins', str(tmp_path), '--json']) == 0
    plugins = json.loads(capsys.readouterr().out)['plugins']
    assert [p['rules'] for p in plugins if p['name'] == 'scaling'] == [['eprules::scale']]


def test_an_edited_file_replaces_its_rule(tmp_path: Path) -> None:
    write_plugin(tmp_path, 'scaling.py', RULE)
    load_plugins([tmp_path])
    axes = 'batch, channels, height, width = coupling.axes_of(x)'
    frozen = f'{axes}\n    coupling.freeze(channels, "mine")'
    write_plugin(tmp_path, 'scaling.py', RULE.replace(axes, frozen))
    load_plugins([tmp_path])
    graph = easypruner.trace(Scaled(), IMAGES)
    assert not graph.groups
    assert any(frozen.reason.startswith('mine') for frozen in graph.frozen)


def test_two_plugins_with_a_rule_for_one_operation(tmp_path: Path) -> None:
    write_plugin(tmp_path / 'a', 'one.py', RULE)
    write_plugin(tmp_path / 'b', 'two.py', RULE)
    with pytest.raises(PluginError, match=r"(?s)'two'.*two\.couple_scale.*one\.couple_scale"):
        load_plugins([tmp_path / 'a', tmp_path / 'b'])


def test_a_module_of_data_sets_is_sent_to_custom_imports(tmp_path: Path) -> None:
    write_plugin(tmp_path, 'data.py', 'class Shapes: ...')
    with pytest.raises(PluginError, match='models or data sets is named in custom_imports'):
        load_plugins([tmp_path])
