"""Layer handlers: which layers they find, their order, and that a cut layer equals a new one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import easypruner
from easypruner.errors import PluginError
from easypruner.graph.cutting.handlers import with_torch_layers
from easypruner.graph.cutting.handles import find_handler
from easypruner.plugins import load_plugins
from easypruner.plugins.handlers import plugin_handlers
from easypruner.testing import example_inputs
from tests.helpers.snapshots import copied_state

torchvision = pytest.importorskip('torchvision')
timm = pytest.importorskip('timm')
mmpretrain = pytest.importorskip('mmpretrain')


def halved(model: nn.Module, inputs: Any) -> nn.Module:
    graph = easypruner.trace(model.eval(), inputs)
    masks = {name: torch.arange(group.size) % 2 == 0 for name, group in graph.groups.items()}
    easypruner.prune(model, masks, graph=graph)
    return model


def numbers(module: nn.Module) -> dict[str, Any]:
    """Return the numbers of a module and all its parts, and how it prints."""
    attributes = {
        name: value
        for name, value in copied_state(module)['numbers'].items()
        if not name.endswith(('training', '_is_hf_initialized'))
    }
    return {**attributes, 'repr': repr(module)}


class Between(nn.Module):
    """A layer between two convolutions; ``call`` says how it is called."""

    def __init__(self, layer: nn.Module, inputs: int, outputs: int, call: Callable) -> None:
        super().__init__()
        self.before, self.layer = nn.Conv2d(3, inputs, 1), layer
        self.after, self.call = nn.Conv2d(outputs, 5, 1), call

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.call(self.layer, self.before(x)))


def deformed(layer: nn.Module, x: Tensor) -> Tensor:
    return layer(x, x.new_zeros(len(x), 18, *x.shape[2:]))


def attended(layer: nn.Module, x: Tensor) -> Tensor:
    tokens = x.flatten(2).transpose(1, 2)
    return layer(tokens, tokens, tokens)[0].transpose(1, 2).unflatten(2, x.shape[2:])


def last(layer: nn.Module, x: Tensor) -> Tensor:
    return layer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def mmpretrain_norm(name: str, channels: int) -> nn.Module:
    import mmpretrain.models.utils.norm as norms

    return getattr(norms, name)(channels)


LAYERS: dict[str, tuple[Callable[[int, int], nn.Module], Callable, bool]] = {
    'convolution': (lambda i, o: nn.Conv2d(i, o, 3, padding=1), nn.Module.__call__, False),
    'transposed': (lambda i, o: nn.ConvTranspose2d(i, o, 1), nn.Module.__call__, False),
    'depthwise': (lambda i, o: nn.Conv2d(i, i, 1, groups=i), nn.Module.__call__, True),
    'linear': (lambda i, o: nn.Linear(i, o), last, False),
    'batch norm': (lambda i, o: nn.BatchNorm2d(i), nn.Module.__call__, True),
    'group norm': (lambda i, o: nn.GroupNorm(2, i), nn.Module.__call__, True),
    'layer norm': (lambda i, o: nn.LayerNorm(i), last, True),
    'prelu': (lambda i, o: nn.PReLU(i), nn.Module.__call__, True),
    'deformable': (
        lambda i, o: torchvision.ops.DeformConv2d(i, o, 3, padding=1), deformed, False,
    ),
    'frozen batch norm': (
        lambda i, o: torchvision.ops.FrozenBatchNorm2d(i), nn.Module.__call__, True,
    ),
    'timm norm, activation': (
        lambda i, o: timm.layers.BatchNormAct2d(i), nn.Module.__call__, True,
    ),
    'timm group norm, activation': (
        lambda i, o: timm.layers.GroupNormAct(i, num_groups=2), nn.Module.__call__, True,
    ),
    'timm layer norm': (lambda i, o: timm.layers.LayerNorm2d(i), nn.Module.__call__, True),
    'timm standardized': (
        lambda i, o: timm.layers.ScaledStdConv2d(i, o, 3, padding=1), nn.Module.__call__, False,
    ),
    'mmpretrain layer norm': (
        lambda i, o: mmpretrain_norm('LayerNorm2d', i), nn.Module.__call__, True,
    ),
    'mmpretrain response norm': (
        lambda i, o: mmpretrain_norm('GRN', i), lambda layer, x: layer(x, 'channel_first'), True,
    ),
}  # fmt: skip
"""Layer by channels in and out, how it is called, and whether it makes what it reads."""


@pytest.mark.parametrize('name', LAYERS)
def test_a_cut_layer_is_like_one_built_so(name: str) -> None:
    build, call, same = LAYERS[name]
    inputs, outputs = (8, 8) if same else (8, 12)
    model = halved(Between(build(inputs, outputs), inputs, outputs, call), example_inputs())
    fresh = build(inputs // 2, outputs // 2)
    assert numbers(model.layer) == numbers(fresh)
    fresh.load_state_dict(model.layer.state_dict(), strict=True)


def test_attention_reads_the_right_widths() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.before, self.after = nn.Linear(6, 32), nn.Linear(32, 3)
            self.itself = nn.MultiheadAttention(32, 4, batch_first=True)
            self.key, self.value = nn.Linear(6, 10), nn.Linear(6, 14)
            self.other = nn.MultiheadAttention(32, 4, batch_first=True, kdim=10, vdim=14)

        def forward(self, x: Tensor) -> Tensor:
            y = self.before(x)
            y = y + self.itself(y, y, y)[0]
            return self.after(y + self.other(y, self.key(x), self.value(x))[0])

    model = halved(Attention(), torch.randn(2, 5, 6))
    assert model.before.out_features == 16
    for layer, expected in (
        (model.itself, nn.MultiheadAttention(16, 4, batch_first=True)),
        (model.other, nn.MultiheadAttention(16, 4, batch_first=True, kdim=5, vdim=7)),
    ):
        assert numbers(layer) == numbers(expected)
        expected.load_state_dict(layer.state_dict(), strict=True)


def test_timm_transformers_report_their_new_width() -> None:
    model = halved(
        timm.create_model('vit_tiny_patch16_224', num_classes=5, depth=2, img_size=32),
        torch.randn(1, 3, 32, 32),
    )
    width = model.pos_embed.shape[-1]
    assert width == 96 == model.head.in_features
    assert (model.embed_dim, model.num_features, model.head_hidden_size) == (width,) * 3


def test_mmpretrain_transformers_report_their_new_width() -> None:
    from mmpretrain.models.backbones import VisionTransformer

    backbone = VisionTransformer('deit-t', img_size=32, patch_size=16)

    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone, self.head = backbone, nn.Linear(192, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.backbone(x)[0])

    model = halved(Classifier(), torch.randn(1, 3, 32, 32))
    assert backbone.embed_dims == backbone.pos_embed.shape[-1] == model.head.in_features == 96


# Finding handlers


class Mine(easypruner.LayerHandler):
    """Handles the batch norms of this test."""

    handles = ('torch.nn.modules.batchnorm.BatchNorm2d',)

    def resize(self, layer: nn.Module, shapes: object) -> None:
        layer.seen = 'mine'


@pytest.fixture
def plugins(tmp_path: Path) -> Iterator[Path]:
    """Yield an empty plugin folder; load the usual plugins afterwards."""
    yield tmp_path
    load_plugins()


PLUGIN = """
from torch import nn
from easypruner import LayerHandler, hookimpl

class Theirs(LayerHandler):
    '''Handles linear layers and batch norms.'''

    handles = {handles}

    def __init__(self{arguments}):
        pass

    def resize(self, layer, shapes):
        layer.seen = 'theirs'

@hookimpl
def easypruner_components():
    return [Theirs]
"""


def test_the_users_come_first_then_plugins_then_torchs(plugins: Path) -> None:
    (plugins / 'theirs.py').write_text(
        PLUGIN.format(handles='(nn.Linear, nn.BatchNorm2d)', arguments='')
    )
    load_plugins([plugins])
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(288, 2))
    graph = easypruner.trace(net, example_inputs(), handlers=[Mine()])
    easypruner.prune(net, {'0': torch.arange(8) < 4}, graph=graph)
    assert (net[1].seen, net[3].seen) == ('mine', 'theirs')
    assert (net[1].num_features, net[3].in_features) == (8, 288), "torch's own were not asked"
    assert net[0].out_channels == 4


@pytest.mark.parametrize(
    ('handles', 'arguments', 'message'),
    [
        ('(nn.Linear,)', ', width', "'Theirs' of plugin 'theirs'.* cannot be made without"),
        ('()', '', r'handles \(\); expected a tuple'),
        ("'torch.nn.Linear'", '', "handles 'torch.nn.Linear'; expected a tuple"),
    ],
)
def test_handlers_that_cannot_be_used(
    plugins: Path, handles: str, arguments: str, message: str
) -> None:
    (plugins / 'theirs.py').write_text(PLUGIN.format(handles=handles, arguments=arguments))
    with pytest.raises(PluginError, match=message):
        load_plugins([plugins])


def test_layers_that_descend_from_a_named_type_are_handled() -> None:
    class Own(torchvision.ops.DeformConv2d):
        pass

    handler = find_handler(Own(3, 4, 1), with_torch_layers(plugin_handlers()))
    assert type(handler).__name__ == 'DeformableConvolution'


@pytest.mark.in_ci
def test_built_in_handlers_import_no_library_of_models() -> None:
    """They are available without loaded plugins, and do not import timm and the like."""
    code = (
        'import sys, torch, easypruner\n'
        'net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.Conv2d(4, 2, 1))\n'
        'graph = easypruner.trace(net, torch.zeros(1, 3, 2, 2))\n'
        'names = {type(handler).__name__ for handler in graph.handlers}\n'
        'assert {"DeformableConvolution", "TimmTransformer", "GlobalResponseNorm"} <= names\n'
        'loaded = {"timm", "torchvision", "mmpretrain", "mmcv", "mmengine"} & set(sys.modules)\n'
        'assert not loaded, loaded\n'
    )
    subprocess.run([sys.executable, '-c', code], check=True)
