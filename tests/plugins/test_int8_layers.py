"""Quantize: int8 layers against the same numbers in float, and the layers that stay in float."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from easypruner_plugins import _int8
from easypruner_plugins._int8 import Int8Conv2d, Int8Layer, Int8Linear
from easypruner_plugins.int8_layers import Int8Weights, quantize
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

import easypruner
from easypruner.errors import RecordError
from easypruner.graph import NetworkRecord


def in_float(layer: Int8Layer, x: Tensor, plain: Any) -> Tensor:
    """Return the expected output of a layer: its dequantized numbers in double precision.

    Each sample has its own grid of activations: 254 steps from its smallest to its largest
    value, zero among them.
    """
    rows = [row.double() for row in x]
    grids = []
    for row in rows:
        low, high = min(float(row.min()), 0.0), max(float(row.max()), 0.0)
        step = max((high - low) / 254, 1e-12)
        zero = round(-low / step)
        grids.append(((row / step + zero).round() - zero) * step)
    scale = layer.weight_scale.double()
    weight = layer.weight.double() * scale.view(-1, *[1] * (layer.weight.dim() - 1))
    bias = None if layer.bias is None else layer.bias.double()
    return plain(torch.stack(grids), weight, bias)


def assert_close(found: Tensor, expected: Tensor, x: Tensor, layer: Int8Layer) -> None:
    # For a value between two steps, single precision may round to the other one.
    step = float((x.max() - x.min()).clamp_min(1e-9)) / 254
    weight = layer.weight.float().abs() * layer.weight_scale.view(-1, *[1] * (x.dim() - 1)).float()
    slack = 2.5 * step * float(weight.amax())
    difference = (found.double() - expected).abs()
    assert float(difference.max()) <= slack + 1e-4 * float(expected.abs().max())
    assert float((difference > 1e-4 * expected.abs().max()).double().mean()) < 0.05


@pytest.fixture(params=['kernels', 'float'])
def either(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run a test with the int8 kernels, and with the same numbers in float."""
    if request.param == 'float':
        monkeypatch.setattr(_int8, 'has_int8_kernels', lambda: False)
    return str(request.param)


CONVOLUTIONS = [
    dict(in_channels=37, out_channels=11, kernel_size=3, padding=1),
    dict(in_channels=3, out_channels=37, kernel_size=5, stride=2, padding=2, bias=False),
    dict(in_channels=16, out_channels=24, kernel_size=3, dilation=2, groups=2),
    dict(in_channels=13, out_channels=8, kernel_size=(1, 5), stride=(2, 1), padding=(0, 2)),
    dict(in_channels=256, out_channels=19, kernel_size=1),
]


@pytest.mark.usefixtures('either')
@pytest.mark.parametrize('arguments', CONVOLUTIONS, ids=str)
def test_a_convolution(arguments: dict[str, Any]) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(**arguments)
    x = torch.randn(3, layer.in_channels, 9, 11) * torch.tensor([1.0, 30.0, 0.01]).view(3, 1, 1, 1)
    model, _ = quantize(layer, x)
    assert isinstance(model, Int8Conv2d)

    def plain(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return functional.conv2d(
            x, weight, bias, layer.stride, layer.padding, layer.dilation, layer.groups
        )

    for sample in range(3):
        one = x[sample : sample + 1]
        assert_close(model(one), in_float(model, one, plain), one, model)
    with torch.no_grad():
        float_error = (model(x) - layer(x)).norm() / layer(x).norm()
    assert float(float_error) < 0.02


@pytest.mark.usefixtures('either')
@pytest.mark.parametrize(('inputs', 'outputs'), [(37, 11), (2, 3), (512, 5)])
def test_a_linear_layer(inputs: int, outputs: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(7, inputs)
    layer = nn.Linear(inputs, outputs)
    model, _ = quantize(layer, x)
    assert isinstance(model, Int8Linear)
    for row in range(7):
        one = x[row : row + 1]
        assert_close(model(one), in_float(model, one, functional.linear), one, model)


@settings(deadline=None, max_examples=30)
@given(
    channels=st.integers(1, 40),
    outputs=st.integers(1, 40),
    kernel=st.integers(1, 4),
    stride=st.integers(1, 3),
    side=st.integers(4, 12),
    seed=st.integers(0, 10**6),
)
def test_kernels_and_float_are_the_same_numbers(
    channels: int, outputs: int, kernel: int, stride: int, side: int, seed: int
) -> None:
    torch.manual_seed(seed)
    layer = nn.Conv2d(channels, outputs, kernel, stride, kernel // 2)
    x = torch.randn(2, channels, side, side)
    model, _ = quantize(layer, x)
    fast = model(x)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_int8, 'has_int8_kernels', lambda: False)
        torch.testing.assert_close(fast, model(x), rtol=1e-5, atol=1e-5 * float(fast.abs().max()))


@pytest.mark.usefixtures('either')
def test_a_result_does_not_depend_on_its_batch() -> None:
    torch.manual_seed(0)
    model, _ = quantize(net(), IMAGES)
    scaled = IMAGES * torch.tensor([1.0, 100.0, 0.01]).view(3, 1, 1, 1)
    single = torch.cat([model(image[None]) for image in scaled])
    assert torch.equal(model(scaled), single)


@pytest.mark.usefixtures('either')
def test_odd_inputs() -> None:
    linear, _ = quantize(nn.Linear(6, 4), torch.rand(2, 6))
    assert linear(torch.rand(2, 3, 6)).shape == (2, 3, 4)
    assert linear(torch.rand(6)).shape == (4,)
    assert linear(torch.rand(0, 6)).shape == (0, 4)
    assert linear(torch.rand(2, 6).bfloat16()).dtype == torch.bfloat16
    assert torch.equal(linear(torch.zeros(1, 6))[0], linear.bias)
    convolution, _ = quantize(nn.Conv2d(3, 5, 3), torch.rand(1, 3, 6, 6))
    assert convolution(torch.rand(3, 6, 6)).shape == (5, 4, 4)
    assert convolution(torch.rand(0, 3, 6, 6)).shape == (0, 5, 4, 4)
    last = torch.rand(2, 3, 6, 6).contiguous(memory_format=torch.channels_last)
    assert torch.equal(convolution(last), convolution(last.contiguous()))
    assert convolution(last.contiguous()).is_contiguous()


IMAGES = torch.rand(3, 3, 12, 12, generator=torch.Generator().manual_seed(1))


class Sub(nn.Linear):
    """Another class, the same arithmetic."""


class Twice(nn.Linear):
    """Does more than its base."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


def net() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 19, 3), nn.BatchNorm2d(19), nn.ReLU(), nn.Conv2d(19, 12, 3, groups=1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), Sub(12, 9), nn.Linear(9, 5),
    ).eval()  # fmt: skip


class Mixed(nn.Module):
    """Layers that cannot be quantized, each for another reason."""

    def __init__(self) -> None:
        super().__init__()
        self.ok = nn.Conv2d(3, 16, 3, padding=1)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.reflected = nn.Conv2d(16, 16, 3, padding=1, padding_mode='reflect')
        self.transposed = nn.ConvTranspose2d(16, 16, 1)
        self.shared = nn.Linear(16, 16)
        self.same = nn.Linear(16, 16)
        self.same.weight = self.shared.weight
        self.read = nn.Linear(16, 16)
        self.normed = nn.utils.parametrizations.weight_norm(nn.Linear(16, 16))
        self.twice = Twice(16, 16)
        self.narrow = nn.Linear(1, 16)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.head = Sub(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.transposed(self.reflected(self.depthwise(self.ok(x)))).mean((2, 3))
        x = self.same(self.shared(x)) + functional.linear(x, self.read.weight)
        x = self.twice(self.normed(x)) + self.narrow(x[:, :1])
        tokens = x[:, None].expand(-1, 3, -1)
        return self.head(self.attention(tokens, tokens, tokens)[0][:, 0])


def test_layers_that_stay_in_float_are_reported_with_the_reason() -> None:
    torch.manual_seed(0)
    model = Mixed().eval()
    expected = model(IMAGES)
    model, transform = quantize(model, IMAGES)
    assert transform.layers == ('ok', 'head')
    reasons = {
        'depthwise': 'groups have 1 channels each',
        'reflected': 'pads with reflect',
        'transposed': 'no int8 kernels for a ConvTranspose2d',
        'shared': 'shared: shared.weight, same.weight',
        'same': 'shared: shared.weight, same.weight',
        'read': 'without calling it',
        'normed': 'computed from other tensors',
        'twice': 'this Twice does more than Linear',
        'narrow': 'a single input',
        'attention': 'in_proj_weight',
        'attention.out_proj': 'without calling it',
    }
    assert transform.kept.keys() == reasons.keys()
    for path, words in reasons.items():
        assert words in transform.kept[path]
    assert float(((model(IMAGES) - expected).norm() / expected.norm()).detach()) < 0.05


def saved(folder: Path) -> tuple[Path, Path, Tensor]:
    """Quantize a network, save it, and return its files and what it computes."""
    torch.manual_seed(0)
    model, transform = quantize(net(), IMAGES)
    weights, record = folder / 'weights.pth', folder / 'architecture.json'
    torch.save(model.state_dict(), weights)
    NetworkRecord((transform,)).save(record)
    return weights, record, model(IMAGES)


def test_it_comes_back_without_pickle_bit_for_bit(tmp_path: Path) -> None:
    weights, record, expected = saved(tmp_path)
    state = torch.load(weights, weights_only=True)
    assert state['0.weight'].dtype == torch.int8
    assert state.keys() > net().state_dict().keys()
    again = easypruner.load_pruned(net, weights, record).eval()
    assert torch.equal(again(IMAGES), expected)
    assert torch.equal(copy.deepcopy(again)(IMAGES), expected)


@pytest.mark.in_ci
def test_loading_needs_no_mmengine(tmp_path: Path) -> None:
    weights, record, _ = saved(tmp_path)
    code = (
        'import sys, easypruner\n'
        'from tests.plugins.test_int8_layers import net\n'
        f'easypruner.load_pruned(net, {str(weights)!r}, {str(record)!r})\n'
        "assert 'mmengine' not in sys.modules"
    )
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, '-c', code], check=True, cwd=root)


def test_weights_in_float_are_refused(tmp_path: Path) -> None:
    _, record, _ = saved(tmp_path)
    state = net().state_dict()
    with pytest.raises(RecordError, match=r'0\.weight is torch\.float32; .* expects int8'):
        easypruner.load_pruned(net, state, record)


def test_a_cut_and_a_quantization_are_one_record(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = net()
    cut = easypruner.prune(model, {'0': torch.arange(19) < 7}, example_inputs=IMAGES)
    model, transform = quantize(model, IMAGES)
    record = NetworkRecord((cut,)).then(transform)
    assert [type(t).__name__ for t in record.transforms] == ['ArchitectureRecord', 'Int8Weights']
    record.save(tmp_path / 'architecture.json')
    again = easypruner.load_pruned(net, model.state_dict(), tmp_path / 'architecture.json').eval()
    assert torch.equal(again(IMAGES), model(IMAGES))
    assert again[3].weight.shape == (12, 7, 3, 3)


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        (lambda c: c['transforms'][0].update(type='Int4Weights'), 'no loaded plugin defines'),
        (lambda c: c['transforms'][0]['content'].update(layers=[3]), 'layers[0]'),
        (lambda c: c['transforms'][0]['content'].update(layers=['9']), "'9'"),
        (lambda c: c['transforms'][0]['content'].update(layers=['1']), 'is a BatchNorm2d'),
        (lambda c: c['transforms'][0].pop('content'), 'content'),
        (lambda c: c.update(transforms={}), 'transforms'),
        (lambda c: c.update(format=9), 'format'),
        (lambda c: c.update(kind='other'), 'kind'),
    ],
)
def test_a_record_that_does_not_fit(change: Any, words: str, tmp_path: Path) -> None:
    from easypruner.base.json_fields import content_hash

    weights, record, _ = saved(tmp_path)
    content = json.loads(record.read_text())
    change(content)
    content['hash'] = content_hash({k: v for k, v in content.items() if k != 'hash'})
    record.write_text(json.dumps(content))
    with pytest.raises(RecordError) as caught:
        easypruner.load_pruned(net, weights, record)
    assert words in str(caught.value)


def test_an_edited_record_is_refused(tmp_path: Path) -> None:
    weights, record, _ = saved(tmp_path)
    record.write_text(record.read_text().replace('"3"', '"0"'))
    with pytest.raises(RecordError, match='edited or damaged'):
        easypruner.load_pruned(net, weights, record)


def test_a_record_is_what_it_was(tmp_path: Path) -> None:
    transform = Int8Weights(('a', 'b.c'), {'d': 'why'})
    NetworkRecord((transform, transform)).save(tmp_path / 'a.json')
    again = NetworkRecord.load(tmp_path / 'a.json', [Int8Weights])
    assert again == NetworkRecord((transform, transform))


def test_the_cost_is_that_of_the_float_network() -> None:
    before = easypruner.trace(net(), IMAGES).cost()
    model, _ = quantize(net(), IMAGES)
    graph = easypruner.trace(model, IMAGES)
    assert (graph.cost().macs, graph.cost().params) == (before.macs, before.params)
    assert not graph.groups
    assert any('integers' in frozen.reason for frozen in graph.frozen)
