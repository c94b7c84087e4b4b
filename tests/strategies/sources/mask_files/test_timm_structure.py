"""Structures of timm: the networks that it publishes, and texts that fit no network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import easypruner
from easypruner import Masks
from easypruner.errors import MaskError
from easypruner.graph import ChannelGraph
from easypruner.strategies.sources.mask_files.contents import How
from easypruner.strategies.sources.mask_files.reading import read_masks
from easypruner.testing.networks import Dense, Plain, Residual
from tests.helpers.networks import Flattened, traced_network

PUBLISHED = {
    'efficientnet_b1': 6_331_916,
    'efficientnet_b2': 8_309_737,
    'efficientnet_b3': 9_855_020,
    'ecaresnet50d': 19_939_713,
    'ecaresnet101d': 24_876_040,
}
SLOW = {'efficientnet_b2', 'efficientnet_b3', 'ecaresnet101d'}


def published(name: str) -> Path:
    timm = pytest.importorskip('timm', reason='timm is not installed')
    return Path(timm.__file__).parent / 'models' / '_pruned' / f'{name}_pruned.txt'


@pytest.mark.parametrize(
    'name', [pytest.param(n, marks=[pytest.mark.slow] if n in SLOW else []) for n in PUBLISHED]
)
def test_published_structures_give_the_networks_of_timm(name: str) -> None:
    file = published(name)
    import timm

    with torch.device('meta'):
        model, theirs = timm.create_model(name).eval(), timm.create_model(f'{name}_pruned')
    graph = easypruner.trace(model, torch.zeros(1, 3, 64, 64, device='meta'))
    masks = read_masks(file).fit(graph, Masks(), How(which='first'))
    assert graph.cost(masks).params == PUBLISHED[name]
    keep = graph.keep(masks)
    shapes = {
        param: [
            int(keep[param, dim].sum()) if (param, dim) in keep else size
            for dim, size in enumerate(tensor.shape)
        ]
        for param, tensor in model.state_dict().items()
    }
    assert shapes == {param: list(tensor.shape) for param, tensor in theirs.state_dict().items()}
    assert sum(p.numel() for p in theirs.parameters()) == PUBLISHED[name]


@pytest.mark.slow
@pytest.mark.parametrize('name', ['efficientnet_b1', 'ecaresnet50d'])
def test_weights_of_timm_fit_the_pruned_network(name: str) -> None:
    file = published(name)
    import timm

    model, theirs = timm.create_model(name).eval(), timm.create_model(f'{name}_pruned').eval()
    images = torch.randn(2, 3, 64, 64)
    source = dict(type='MaskFile', path=str(file), which='l1')
    slimmed = easypruner.slim(model, images, source=source).model
    slimmed.load_state_dict(theirs.state_dict())
    with torch.no_grad():
        assert torch.equal(slimmed(images), theirs(images))


def fit(text: str, graph: ChannelGraph, folder: Path) -> Masks:
    (folder / 'structure.txt').write_text(text)
    return read_masks(folder / 'structure.txt').fit(graph, Masks(), How(which='first'))


def test_widths_behind_a_concatenation_are_what_the_others_leave(tmp_path: Path) -> None:
    graph = traced_network(Dense)
    # The inputs of head are those channels and the three of the image.
    text = 'head.weight:[5, 10]***a.0.weight:[2, 3, 3, 3]***b.0.weight:[1, 5, 3, 3]'
    masks = fit(text, graph, tmp_path)
    assert {name: masks.kept(name) for name in masks} == {'a.0': 2, 'b.0': 1, 'c.0': 4}


def test_a_width_may_count_several_channels_of_each_unit(tmp_path: Path) -> None:
    graph = traced_network(Flattened)
    [group] = [n for n, g in graph.groups.items() if any(m.index.shape[1] > 1 for m in g.members)]
    [member] = [m for m in graph.groups[group].members if m.index.shape[1] > 1]
    shape = list(graph.parameter(member.param).shape)
    shape[member.dim] = 3 * member.index.shape[1]
    assert fit(f'{member.param}:{shape}', graph, tmp_path).kept(group) == 3
    shape[member.dim] += 1
    with pytest.raises(MaskError, match=rf'in steps of {member.index.shape[1]}, because group'):
        fit(f'{member.param}:{shape}', graph, tmp_path)


@pytest.mark.parametrize(
    ('build', 'text', 'words'),
    [
        (
            Plain,
            'body.0.0.weight:[3, 3, 3, 3]***x',
            r"entry 2 of .* is 'x'; expected name:\[size",
        ),
        (Plain, 'body.0.0.weight:[3, 0, 3, 3]', r'entry 1 of .* sizes from 1'),
        (Plain, 'body.0.0.weight:[3, , 3]', 'entry 1 of'),
        (Plain, f'body.0.0.weight:[{"9" * 40}]', 'entry 1 of'),
        (Plain, 'a:[3]***b:[2]***a:[4]', r"entry 3 .* gives 'a' the shape \[4\]; expected \[3\]"),
        (Plain, 'body.0.0.weight:[3, 3]', r'expected 4 sizes, because it has the shape \[8, 3, 3'),
        (Plain, 'body.0.0.weight:[9, 3, 3, 3]', r'is 9; expected a width from 1 to 8, because'),
        (Plain, 'body.0.0.weight:[3, 3, 5, 3]', 'dimension 2 of .* is 5; expected 3: the extent'),
        (Plain, 'body.0.0.wieght:[3, 3, 3, 3]', "did you mean 'body.0.0.weight'.*rename="),
        (
            Plain,
            'body.0.0.weight:[3, 3, 3, 3]***body.1.0.weight:[6, 4, 3, 3]',
            r"dimension 1 of 'body.1.0.weight' in the structure is 4; expected 3 by dimension 0",
        ),
        (
            Residual,
            'stem.0.weight:[3, 3, 3, 3]***branch.2.weight:[4]***branch.0.0.weight:[2, 3, 3, 3]',
            r"'branch.2.weight' .* is 4; expected 3 by dimension 0 of 'stem.0.weight'",
        ),
        (Dense, 'head.weight:[5, 10]', "nothing says how many .* groups 'a.0', 'b.0', 'c.0'"),
    ],
)
def test_structures_that_do_not_fit(build: Any, text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(MaskError, match=words):
        fit(text, traced_network(build), tmp_path)


def test_the_number_of_classes_is_the_networks_own(tmp_path: Path) -> None:
    text = 'head.weight:[1000, 12]***body.0.0.weight:[3, 1, 3, 3]'
    with pytest.raises(MaskError):
        fit(text.replace('12', '99'), traced_network(Plain), tmp_path)
    assert fit(text, traced_network(Plain), tmp_path).kept('body.0.0') == 3
