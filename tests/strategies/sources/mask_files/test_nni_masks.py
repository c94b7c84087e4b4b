"""Masks of NNI that fit no network, or remove no whole channels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from easypruner import Masks
from easypruner.errors import MaskError
from easypruner.strategies.sources.mask_files.contents import How
from easypruner.strategies.sources.mask_files.reading import read_masks
from easypruner.testing.networks import Plain, Residual
from tests.helpers.networks import traced_network

WHOLE = torch.ones(8, 3, 3, 3)
HALF = torch.cat([torch.ones(4, 3, 3, 3), torch.zeros(4, 3, 3, 3)])
SINGLE = HALF.clone()
SINGLE[0, 0, 0, 0] = 0


def fit(content: Any, build: Any, folder: Path, conflict: str = 'error') -> Masks:
    torch.save(content, folder / 'mask.pth')
    return read_masks(folder / 'mask.pth').fit(traced_network(build), Masks(), How(conflict))


def test_coupled_layers_that_disagree_as_in_nni(tmp_path: Path) -> None:
    other = 1 - torch.cat([torch.ones(2, 6, 1, 1), torch.zeros(6, 6, 1, 1)])
    content = {'stem.0': {'weight': HALF}, 'branch.1': {'weight': other}}
    with pytest.raises(MaskError, match=r"'stem.0.weight' \(dimension 0\) and .*'branch.1.weight'"):
        fit(content, Residual, tmp_path)
    # ModelSpeedup as well removes a channel of a sum only if both masks do.
    content['branch.1'] = {'weight': 1 - other}
    masks = fit(content, Residual, tmp_path, conflict='keep')
    assert masks['stem.0'].tolist() == [True] * 4 + [False] * 4


def test_masks_of_inputs_alone_remove_what_makes_them(tmp_path: Path) -> None:
    mask = torch.ones(12, 8, 3, 3)
    mask[:, [1, 5]] = 0
    graph = traced_network(Plain)
    assert graph.parameter('body.1.0.weight').shape == mask.shape
    masks = fit({'body.1.0': {'weight': mask}}, Plain, tmp_path)
    assert (~masks['body.0.0']).nonzero().flatten().tolist() == [1, 5] and len(masks) == 1


def test_a_mask_of_a_whole_weight_keeps_its_channels(tmp_path: Path) -> None:
    content = {'body.0.0': {'weight': WHOLE, 'bias': None}}
    assert bool(fit(content, Plain, tmp_path)['body.0.0'].all())


@pytest.mark.parametrize(
    ('content', 'words'),
    [
        (
            {'body.0.0': {'weight': SINGLE}},
            r'is 0 at 1 elements of channels that it keeps',
        ),
        ({'body.0.0': {'weight': HALF * 0.5}}, 'other values than 0 and 1'),
        (
            {'body.0.0': {'weight': HALF[:7]}},
            r'of shape \[7, 3, 3, 3\]; expected \[8, 3, 3',
        ),
        ({'body.0.0': {'weight': torch.zeros(1).expand(10**6, 10**6)}}, 'is of shape'),
        ({'body.0.0': {'wieght': HALF}}, "one of 'wieght'; .*did you mean 'body.0.0.weight'"),
        ({'body.0.00': {'weight': HALF}}, "does not have; did you mean 'body.0.0'"),
        (
            {'body.0.0': {'weight': HALF}, 'body.1.0': HALF},
            "layer 'body.1.0'; expected, as NNI",
        ),
        ({'body.0.0': {'weight': [1, 0]}}, r"mask of 'weight' of layer 'body.0.0' in .* is a list"),
        ({'body.0.0': {'weight': HALF.to_sparse()}}, 'expected a tensor of 0 and 1'),
        ({3: {'weight': HALF}}, 'for layer 3; expected'),
        ({'head': {'bias': torch.tensor([1.0, 1, 1, 1, 0])}}, 'removes 1 channels that cannot'),
        ({'body.0.1': {'weight': torch.zeros(8)}}, 'removes all 8 units'),
    ],
)
def test_files_that_do_not_fit(content: Any, words: str, tmp_path: Path) -> None:
    graph = traced_network(Plain)
    with pytest.raises(MaskError, match=words):
        fit(content, Plain, tmp_path).check(graph)
