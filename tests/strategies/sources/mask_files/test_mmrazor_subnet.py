"""Sub-networks of mmrazor: its published one of ResNet-50, its arithmetic, and broken files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision

import easypruner
from easypruner import Masks
from easypruner.errors import MaskError
from easypruner.strategies.sources.mask_files.contents import How
from easypruner.strategies.sources.mask_files.mmrazor_subnet import parse
from easypruner.strategies.sources.mask_files.reading import read_masks
from easypruner.testing.networks import Plain
from tests.helpers.networks import traced_network

DMCP_R50_2G = {
    'conv1': 52, 'layer1.0.conv1': 22, 'layer1.0.conv2': 22, 'layer1.0.conv3': 106,
    'layer1.1.conv1': 16, 'layer1.1.conv2': 16, 'layer1.2.conv1': 40, 'layer1.2.conv2': 16,
    'layer2.0.conv1': 68, 'layer2.0.conv2': 56, 'layer2.0.conv3': 155, 'layer2.1.conv1': 32,
    'layer2.1.conv2': 68, 'layer2.2.conv1': 56, 'layer2.2.conv2': 56, 'layer2.3.conv1': 80,
    'layer2.3.conv2': 92, 'layer3.0.conv1': 256, 'layer3.0.conv2': 256, 'layer3.0.conv3': 1024,
    'layer3.1.conv1': 106, 'layer3.1.conv2': 106, 'layer3.2.conv1': 131, 'layer3.2.conv2': 256,
    'layer3.3.conv1': 131, 'layer3.3.conv2': 256, 'layer3.4.conv1': 256, 'layer3.4.conv2': 256,
    'layer3.5.conv1': 256, 'layer3.5.conv2': 256, 'layer4.0.conv1': 512, 'layer4.0.conv2': 512,
    'layer4.0.conv3': 2048, 'layer4.1.conv1': 512, 'layer4.1.conv2': 461, 'layer4.2.conv1': 512,
    'layer4.2.conv2': 512,
}  # fmt: skip
"""The choices of configs/pruning/mmcls/dmcp/DMCP_R50_2G.json in mmrazor 1.0."""
DEPTHS = (3, 4, 6, 3)


def counted() -> tuple[int, int]:
    """Return the MACs at 224 x 224 and the parameters of a ResNet-50 of these widths."""
    width, channels, size = DMCP_R50_2G, DMCP_R50_2G['conv1'], 56
    macs, params = 112**2 * 3 * 49 * channels, 3 * 49 * channels + 2 * channels
    for stage, depth in enumerate(DEPTHS, start=1):
        out = width[f'layer{stage}.0.conv3']
        for block in range(depth):
            before = size if block or stage == 1 else 2 * size
            first, second = (width[f'layer{stage}.{block}.conv{n}'] for n in (1, 2))
            weights = [channels * first, first * second * 9, second * out]
            macs += weights[0] * before**2 + (weights[1] + weights[2]) * size**2
            params += sum(weights) + 2 * (first + second + out)
            if block == 0:
                macs += channels * out * size**2
                params += channels * out + 2 * out
            channels = out
        size //= 2
    return macs + channels * 1000, params + channels * 1000 + 1000


def test_the_published_resnet50_has_the_right_costs(tmp_path: Path) -> None:
    with torch.device('meta'):
        graph = easypruner.trace(torchvision.models.resnet50().eval(), torch.zeros(1, 3, 224, 224))
    modules = dict(graph.model.named_modules())
    units = {}
    for layer, choice in DMCP_R50_2G.items():
        size = modules[layer].out_channels
        arguments = dict(num_channels=size, choice_mode='number', divisor=1, min_value=1)
        name = f'backbone.{layer}_(0, {size})_{size}'
        units[name] = dict(init_args={**arguments, 'min_ratio': 0.5}, choice=choice)
    unit = dict(type='DMCPChannelUnit', default_args=dict(choice_mode='number'), units=units)
    file = tmp_path / 'DMCP_R50_2G.json'
    file.write_text(json.dumps(dict(type='DMCPChannelMutator', channel_unit_cfg=unit)))
    content = read_masks(file)
    content = content.renamed({name: name.removeprefix('backbone.') for name in content.names})
    cost = graph.cost(content.fit(graph, Masks(), How(which='first')))
    assert (cost.macs, cost.params) == counted()


def kept(entry: Any, folder: Path) -> int:
    """Return how many channels of the first layer stay, of 8."""
    (folder / 'units.json').write_text(json.dumps({'body.0.0_(0, 8)_8': entry}))
    masks = read_masks(folder / 'units.json').fit(traced_network(Plain), Masks(), How())
    return masks.kept('body.0.0')


@pytest.mark.parametrize(
    ('entry', 'expected'),
    [
        (3, 3), (8, 8), (9, 8), (0.5, 4), (0.49, 3), (0.01, 1), (1.0, 8),
        ({'choice': 3}, 3),
        # Its make_divisible(): to the nearest multiple, and up if that loses over a tenth.
        ({'choice': 5, 'init_args': {'divisor': 4, 'min_ratio': 0.9}}, 8),
        ({'choice': 5, 'init_args': {'divisor': 4, 'min_ratio': 0.5}}, 4),
        ({'choice': 6, 'init_args': {'divisor': 4}}, 8),
        ({'choice': 1, 'init_args': {'divisor': 2}}, 2),
    ],
)  # fmt: skip
def test_choices_are_computed_as_mmrazor_does(entry: Any, expected: int, tmp_path: Path) -> None:
    assert kept(entry, tmp_path) == expected


def test_shares_that_are_rounded_when_written() -> None:
    for channels in range(2, 200):
        for number in (1, channels // 3 or 1, channels - 1):
            [choice] = parse({f'x_(0, {channels})_{channels}': number / channels}, 'x').choices
            assert choice.kept == number


@pytest.mark.parametrize(
    ('content', 'words'),
    [
        ({'body.0.0_(0, 8)_8': 0}, r"'body.0.0_\(0, 8\)_8' in .* is 0; expected a whole number"),
        ({'body.0.0_(0, 8)_8': True}, 'is True; expected a whole number'),
        ({'body.0.0_(0, 8)_8': 1.5}, 'is 1.5; expected'),
        ({'body.0.0_(0, 8)_8': 'four'}, "is 'four'; expected"),
        ({'body.0.0_(0, 8)_8': float('nan')}, 'is nan; expected'),
        ({'body.0.0_(0, 8)_8': {'chioce': 4}}, "has no 'choice'.*did you mean 'chioce'"),
        ({'body.0.0_(0, 8)_8': 4, 'body.1.0': 4}, "has the unit 'body.1.0'; expected the name of"),
        ({'body.0.0_(8, 0)_8': 4}, 'has the unit'),
        ({'body.0.0_(0, 8)_0': 4}, 'has the unit'),
        ({'body.0.0_(0, 16)_16': 4}, r'is of 16 channels, 0 to 16 .*; the layer has 8 channels'),
        ({'body.0.0_(0, 4)_4': 2}, 'does not say how many units stay'),
        ({'body.0.00_(0, 8)_8': 4}, "does not have; did you mean 'body.0.0'"),
        ({'body.0.2_(0, 8)_8': 4}, 'a ReLU without a weight'),
        ({'head_(0, 5)_5': 4}, "'head.*is 4; expected 5: an output of the model"),
        ({'channel_unit_cfg': {'type': 'x'}}, "cfg of .* expected a dict with 'units'"),
        ({'channel_unit_cfg': {'units': 'units.json'}}, "expected a dict with 'units'"),
        ({'channel_unit_cgf': {'units': {}}}, "has 'channel_unit_cgf'; expected the key"),
        ({'backbone.depth': {'chosen': 3}}, 'choices of an architecture search of mmrazor'),
    ],
)  # fmt: skip
def test_files_that_do_not_fit(content: Any, words: str, tmp_path: Path) -> None:
    (tmp_path / 'units.json').write_text(json.dumps(content))
    with pytest.raises(MaskError, match=words):
        read_masks(tmp_path / 'units.json').fit(traced_network(Plain), Masks(), How())
