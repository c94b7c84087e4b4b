"""The map by structure is right if it is unique, and is not proposed otherwise."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from easypruner.checkpoints.structure import as_rename, structural_map

State = dict[str, Tensor]
WORDS = st.sampled_from(['conv', 'bn', 'layer', 'block', 'fc', 'head', 'a', 'b', 'x1', 'net'])


def leaves(kind: str, width: int) -> dict[str, tuple[int, ...]]:
    """Return the weights of a module: name -> shape."""
    if kind == 'conv':
        return {'weight': (width, width + 1, 3, 3)}
    if kind == 'linear':
        return {'weight': (width, 5), 'bias': (width,)}
    norm = dict.fromkeys(('weight', 'bias', 'running_mean', 'running_var'), (width,))
    return {**norm, 'num_batches_tracked': ()}


def state(modules: list[tuple[str, str, int]]) -> State:
    return {
        f'{path}.{leaf}': torch.empty(shape, device='meta')
        for path, kind, width in modules
        for leaf, shape in leaves(kind, width).items()
    }


PATHS = st.lists(
    st.lists(WORDS, min_size=1, max_size=4).map('.'.join), min_size=2, max_size=12, unique=True
)


@st.composite
def networks(draw: Any) -> tuple[State, State, dict[str, str]]:
    """Draw a network, the same one under other names, and the map between them.

    The second one numbers its modules, so that no name of the first one occurs in it.
    """
    paths = draw(PATHS)
    kinds = st.sampled_from(['conv', 'norm', 'linear'])
    layers = [(draw(kinds), draw(st.integers(1, 3))) for _ in paths]
    depth = draw(st.integers(1, 3))
    others = [f'{"m." * depth}{number}.z' for number in range(len(paths))]
    one = state([(path, *layer) for path, layer in zip(paths, layers, strict=True)])
    other = state([(path, *layer) for path, layer in zip(others, layers, strict=True)])
    return one, other, dict(zip(one, other, strict=True))


@given(networks())
@settings(max_examples=150)
def test_the_same_network_under_other_names(case: tuple[State, State, dict[str, str]]) -> None:
    one, other, expected = case
    assert structural_map(one, other) == expected
    assert structural_map(other, one) == {new: old for old, new in expected.items()}
    rule = as_rename(expected, list(one))
    assert rule.apply(one) == expected


def embeddings(short: list[Any], long: list[Any]) -> int:
    """Count the ways to find one sequence in another one, in order."""
    ways = [1] + [0] * len(short)
    for item in long:
        for at in reversed(range(len(short))):
            if short[at] == item:
                ways[at + 1] += ways[at]
    return ways[-1]


@given(networks(), st.data())
@settings(max_examples=150)
def test_a_network_with_fewer_layers(
    case: tuple[State, State, dict[str, str]], data: st.DataObject
) -> None:
    """A map is proposed if and only if counting finds exactly one, or one but for the last layer.

    If one is proposed, it maps shapes to equal shapes, and modules to whole modules.
    """
    one, other, _ = case
    modules = list(dict.fromkeys(name.rpartition('.')[0] for name in one))
    left_out = data.draw(st.sets(st.sampled_from(modules), max_size=2))
    given = {n: t for n, t in one.items() if n.rpartition('.')[0] not in left_out}
    found = structural_map(given, other)

    def sequence(weights: State) -> list[Any]:
        return [
            (name.rpartition('.')[2], tuple(tensor.shape))
            for name, tensor in weights.items()
            if 'tracked' not in name
        ]

    if embeddings(sequence(given), sequence(other)) > 1:
        assert found is None
    if found is not None:
        wide = [old for old, new in found.items() if given[old].shape != other[new].shape]
        assert len({name.rpartition('.')[0] for name in wide}) <= 1
        pairs = {(a.rpartition('.')[0], b.rpartition('.')[0]) for a, b in found.items()}
        assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})


@given(networks(), st.data())
def test_another_order_or_shape_is_refused(
    case: tuple[State, State, dict[str, str]], data: st.DataObject
) -> None:
    one, other, _ = case
    names = list(one)
    at = data.draw(st.integers(0, len(names) - 1))
    wrong = dict(one)
    wrong[names[at]] = torch.empty((*one[names[at]].shape, 7), device='meta')
    if 'tracked' not in names[at]:
        assert structural_map(wrong, other) is None


def attention(*names: str) -> State:
    return state([(f'attn.{name}', 'linear', 4) for name in names])


@pytest.mark.parametrize(
    ('one', 'other', 'proposed'),
    [
        # The names contradict the order: queries would become keys.
        (attention('query', 'key', 'value'), attention('key', 'query', 'value'), False),
        (attention('query', 'key', 'value'), attention('query', 'key', 'value'), True),
        (attention('query', 'key', 'value'), attention('q', 'k', 'v'), True),
        # A shift of numbers is usual, an exchange is not.
        (attention('conv1', 'conv2'), attention('conv0', 'conv1'), True),
        (attention('conv1', 'conv2'), attention('conv2', 'conv1'), False),
        # One of two equal layers is missing.
        (attention('a'), attention('x', 'y'), False),
        ({}, attention('x'), False),
    ],
)
def test_names_may_contradict_the_order(one: State, other: State, proposed: bool) -> None:
    assert (structural_map(one, other) is not None) is proposed


def test_another_number_of_classes_is_left_to_the_user() -> None:
    one = state([('a', 'conv', 2), ('fc', 'linear', 4)])
    other = state([('x.a', 'conv', 2), ('head', 'linear', 3)])
    assert structural_map(one, other) == {
        'a.weight': 'x.a.weight', 'fc.weight': 'head.weight', 'fc.bias': 'head.bias'
    }  # fmt: skip


def test_rules_do_not_rename_twice() -> None:
    """The result of a rule may look like the beginning of another rule."""
    found = {'a.w': 'b.w', 'b.w': 'c.w', 'c.w': 'a.w', 'd': 'a.d'}
    assert as_rename(found, list(found)).apply(found) == found


@pytest.mark.parametrize('name', ['mobilenet_v2', 'efficientnet_b0', 'vgg11_bn'])
def test_networks_of_torchvision_and_mmpretrain(name: str) -> None:
    """The outputs are equal after loading by the map."""
    import mmpretrain
    from torchvision.models import get_model

    from easypruner.engine.compat import prepare

    prepare()
    theirs = {
        'mobilenet_v2': 'mobilenet-v2_8xb32_in1k',
        'efficientnet_b0': 'efficientnet-b0_3rdparty_8xb32_in1k',
        'vgg11_bn': 'vgg11bn_8xb32_in1k',
    }
    source: nn.Module = get_model(name, weights=None).eval()
    target = mmpretrain.get_model(theirs[name]).eval()
    weights = source.state_dict()
    found = structural_map(weights, target.state_dict())
    assert found is not None
    target.load_state_dict({found[name]: tensor for name, tensor in weights.items()})
    images = torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        outputs = target.head(target.extract_feat(images))
        outputs = outputs[-1] if isinstance(outputs, tuple) else outputs
        torch.testing.assert_close(outputs, source(images))
