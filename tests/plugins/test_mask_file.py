"""MaskFile: masks of groups and of layers, from any code, applied one after the other."""

from __future__ import annotations

import copy
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from easypruner_plugins.mask_file import MaskFile
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

import easypruner
from easypruner import Context, Masks
from easypruner.errors import ConfigError, MaskError
from easypruner.graph import ChannelGraph
from easypruner.testing import example_inputs, random_masks, randomized_network
from easypruner.testing.networks import Dense, Depthwise, Grouped, Plain, Residual
from tests.helpers.networks import NETWORKS, traced_network


def bits(text: str) -> Tensor:
    return torch.tensor([letter == '1' for letter in text])


def released(path: Path, masks: dict[str, Any], **options: Any) -> str:
    torch.save(OrderedDict(masks), path, **options)
    return str(path)


def select(path: Any, graph: ChannelGraph, **arguments: Any) -> Masks:
    source = MaskFile(path, **arguments)
    source.check()
    source.dry_run(graph, Context())
    return source.select(graph, Context())


def layers_of(graph: ChannelGraph, masks: Masks, norms_only: bool = False) -> dict[str, Tensor]:
    """Return the mask of every layer that produces channels, unit by unit."""
    found: dict[str, Tensor] = {}
    for name, group in graph.groups.items():
        for member in group.members:
            weight = graph.parameter(member.param)
            module = graph.model.get_submodule(member.module)
            norm = isinstance(module, nn.BatchNorm2d)
            if member.role == 'in' or not member.param.endswith('.weight'):
                continue
            if norms_only and not norm:
                continue
            if getattr(module, 'transposed', False) and member.dim == 0:
                continue
            repeats = module.groups if getattr(module, 'transposed', False) else 1
            width = weight.shape[member.dim]
            mask = found.setdefault(member.module, torch.ones(width * repeats) > 0)
            for unit, kept in enumerate(masks[name].tolist()):
                for index in member.index[unit].tolist():
                    for repeat in range(repeats):
                        mask[index + repeat * width] = kept
    return found


@pytest.mark.parametrize('legacy', [False, True])
@pytest.mark.parametrize('build', NETWORKS)
def test_masks_of_layers_determine_those_of_groups(
    build: type[nn.Module], legacy: bool, tmp_path: Path
) -> None:
    graph = traced_network(build)
    masks = random_masks(graph, seed=3)
    layers = layers_of(graph, masks)
    assert len(layers) > 1
    options = {'_use_new_zipfile_serialization': not legacy}
    path = released(tmp_path / 'flops50.mask', layers, **options)
    assert select(path, graph) == masks
    assert easypruner.verify(graph.model, masks, example_inputs()).error < 1e-12


def test_batch_norms_alone_are_enough_as_released(tmp_path: Path) -> None:
    graph = traced_network(Residual)
    masks = Masks({'stem.0': bits('10110101'), 'branch.0.0': bits('111010')})
    layers = layers_of(graph, masks, norms_only=True)
    assert set(layers) == {'stem.1', 'branch.0.1', 'branch.2'}
    assert select(released(tmp_path / 'mask.pth', layers), graph) == masks
    del layers['stem.1'], layers['branch.0.1']
    actual = select(released(tmp_path / 'mask.pth', layers), graph)
    assert actual == Masks({'stem.0': masks['stem.0']})


def test_true_may_mean_remove(tmp_path: Path) -> None:
    graph = traced_network(Plain)
    path = released(tmp_path / 'mask.pth', {'body.0.1': bits('10000001')})
    assert select(path, graph)['body.0.0'].tolist() == bits('10000001').tolist()
    assert select(path, graph, true='remove')['body.0.0'].tolist() == bits('01111110').tolist()


def test_layers_in_a_safetensors_file(tmp_path: Path) -> None:
    path = tmp_path / 'layers.safetensors'
    save_file({'grouped.1': bits('101111' * 3)}, path)
    graph = traced_network(Grouped)
    assert select(str(path), graph)['grouped.0'].tolist() == bits('101111').tolist()


@pytest.mark.parametrize(
    'rename',
    [
        {'module': '', 's1.b1': 'body.0', 's1.b2': 'body.1', 'a_bn': '1'},
        {r'module\.s1\.b1\.a_bn': 'body.0.1', r'module\.s1\.b2\.a_bn': 'body.1.1'},
        {r'module\.s1': 'body', r'b1': '0', 'b2': '1', r'a_(bn)': '1', 'never': 'fits'},
        {r'module\.s1\.b(\d)\.a_bn': r'layer\1', 'layer1': 'body.0.1', 'layer2': 'body.1.1'},
    ],
)
def test_names_of_other_code_are_mapped(rename: dict[str, str], tmp_path: Path) -> None:
    first, second = bits('10101010'), bits('110110110110')
    path = released(
        tmp_path / 'mask.pth', {'module.s1.b1.a_bn': first, 'module.s1.b2.a_bn': second}
    )
    actual = select(path, traced_network(Plain), rename=rename)
    assert actual == Masks({'body.0.0': first, 'body.1.0': second})


@pytest.mark.parametrize(
    'rename', ['^s1=>body', [['^s', 'x'], ['^x1', 'body']], ['^s1=>s2', '^s2=>body']]
)
def test_rules_for_weights_rename_masks_as_well(rename: Any, tmp_path: Path) -> None:
    path = released(tmp_path / 'mask.pth', {'s1.0.1': bits('10101010')})
    assert select(path, traced_network(Plain), rename=rename).kept('body.0.0') == 4


def test_a_rule_that_no_map_has_and_one_without_names() -> None:
    with pytest.raises(ConfigError, match="did you mean 'pycls->mmpretrain'"):
        MaskFile('mask.pth', rename='pycls->mmpretrian')
    with pytest.raises(ConfigError, match="rename='by_structure' of MaskFile; expected rules"):
        MaskFile('mask.pth', rename='by_structure')


def test_a_rule_replaces_whole_parts_only(tmp_path: Path) -> None:
    path = released(tmp_path / 'mask.pth', {'body.0.1': bits('10101010')})
    actual = select(path, traced_network(Plain), rename={'bod': 'x', 'ody': 'x', r'0\.1': '0.1'})
    assert actual.kept('body.0.0') == 4


@pytest.mark.parametrize(
    ('rename', 'error', 'words'),
    [
        ({'(': 'x'}, ConfigError, r"rename\['\('\] is not a regular expression"),
        ({'body': r'\7'}, ConfigError, 'is not a regular expression'),
        ({r'body\.(0|1)': 'body'}, MaskError, "both 'body.0.1' and 'body.1.1' into 'body.1'"),
        ({'body': 'bady'}, MaskError, "did you mean 'body.0.1'.*rename="),
        ({'body': 'module.body'}, MaskError, r"rename=\{'module': ''\} removes the 'module'"),
    ],
)
def test_rules_that_do_not_work(
    rename: dict[str, str], error: type[Exception], words: str, tmp_path: Path
) -> None:
    layers = {'body.0.1': bits('1' * 8), 'body.1.1': bits('1' * 12)}
    path = released(tmp_path / 'mask.pth', layers)
    with pytest.raises(error, match=words):
        select(path, traced_network(Plain), rename=rename)


def test_the_suggested_rule_helps_where_a_part_comes_twice(tmp_path: Path) -> None:
    model = nn.Sequential(OrderedDict(net=randomized_network(Plain))).eval()
    graph = easypruner.trace(model, example_inputs())
    path = released(tmp_path / 'mask.pth', {'net.net.body.0.1': bits('10101010')})
    with pytest.raises(MaskError, match=r"rename=\{'\^net': ''\} removes the 'net' before"):
        select(path, graph)
    assert select(path, graph, rename={'^net': ''}).removed_units == 4


def test_coupled_layers_that_disagree(tmp_path: Path) -> None:
    graph = traced_network(Residual)
    path = released(
        tmp_path / 'mask.pth', {'stem.1': bits('00111111'), 'branch.2': bits('01011111')}
    )
    with pytest.raises(MaskError, match=r"'stem\.1' and 'branch\.2' of group 'stem\.0' .* 2 of 8"):
        select(path, graph)
    actual = select(path, graph, conflict='keep')['stem.0']
    assert actual.tolist() == bits('01111111').tolist()


def test_channels_of_one_unit_that_disagree(tmp_path: Path) -> None:
    graph = traced_network(Depthwise)
    path = released(tmp_path / 'mask.pth', {'multiplied.1': bits('0001' + '1' * 12)})
    with pytest.raises(MaskError, match=r"layer 'multiplied\.1' .* 1 units of group 'expand\.0'"):
        select(path, graph)
    actual = select(path, graph, conflict='keep')['expand.0']
    assert actual.tolist() == bits('01111111').tolist()


def test_a_layer_of_several_groups(tmp_path: Path) -> None:
    class Joined(Dense):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm2d(10)

        def forward(self, x: Tensor) -> Tensor:
            a = self.a(x)
            ab = self.norm(torch.cat([a, self.b(torch.cat([x, a], dim=1))], dim=1))
            x = torch.cat([x, ab], dim=1)
            return self.head(torch.cat([x, self.c(x)], dim=1).mean((2, 3)))

    graph = traced_network(Joined)
    path = released(tmp_path / 'mask.pth', {'norm': bits('0111101101')})
    assert select(path, graph) == Masks({'a.0': bits('0111'), 'b.0': bits('101101')})


@pytest.mark.parametrize('kinds', ['gg', 'gl', 'lg', 'll', 'lll'])
@pytest.mark.parametrize('build', [Residual, Grouped, Depthwise])
def test_masks_found_on_pruned_networks_follow_each_other(
    build: type[nn.Module], kinds: str, tmp_path: Path
) -> None:
    graph, model = traced_network(build), randomized_network(build)
    paths = []
    for number, kind in enumerate(kinds):
        now = easypruner.trace(model, example_inputs())
        masks = random_masks(now, seed=number + 5)
        path = tmp_path / f'{number}.masks'
        if kind == 'g':
            masks.save(path)
        else:
            released(path, layers_of(now, masks))
        paths.append(str(path))
        easypruner.prune(model, masks, graph=now)
    whole = copy.deepcopy(graph.model)
    easypruner.prune(whole, select(paths, graph), example_inputs=example_inputs())
    assert all(torch.equal(t, model.state_dict()[n]) for n, t in whole.state_dict().items())
    assert torch.equal(whole(example_inputs()), model(example_inputs()))


def test_masks_in_the_wrong_order(tmp_path: Path) -> None:
    first = released(tmp_path / 'first.pth', {'body.0.1': bits('11110000')})
    second = released(tmp_path / 'second.pth', {'body.0.1': bits('0111')})
    graph = traced_network(Plain)
    assert select([first, second], graph)['body.0.0'].tolist() == bits('01110000').tolist()
    with pytest.raises(MaskError, match=r"'body\.0\.1' has 4 entries; the layer has 8 channels; "):
        select([second, first], graph)
    with pytest.raises(MaskError, match='has 8 entries; the layer has 4 channels left of 8'):
        select([first, first], graph)


@given(data=st.data())
def test_then_is_one_after_the_other(data: st.DataObject) -> None:
    names = st.sampled_from('abc')
    sizes = {'a': 4, 'b': 1, 'c': 6}

    def masks(left: dict[str, int]) -> Masks:
        chosen = data.draw(st.sets(names))
        drawn = {
            n: data.draw(st.lists(st.booleans(), min_size=left[n], max_size=left[n]))
            for n in chosen
        }
        return Masks({n: torch.tensor(m, dtype=torch.bool) for n, m in drawn.items()})

    first = masks(sizes)
    second = masks({n: first.kept(n) if n in first else size for n, size in sizes.items()})
    both = first.then(second)
    assert set(both) == set(first) | set(second)
    for name, mask in both.items():
        units = list(range(sizes[name]))
        for step in (first, second):
            if name in step:
                units = [u for u, kept in zip(units, step[name].tolist(), strict=True) if kept]
        assert mask.nonzero().flatten().tolist() == units


def test_then_leaves_its_operands_unchanged() -> None:
    first, second = Masks({'a': bits('1011')}), Masks({'a': bits('010')})
    assert first.then(second)['a'].tolist() == bits('0010').tolist()
    assert first['a'].tolist() == bits('1011').tolist()
    with pytest.raises(MaskError, match=r"'a' has 4 entries, but the earlier one leaves 3 of 4"):
        first.then(first)


class Stranger:
    """An object that only code could restore."""


@pytest.mark.parametrize(
    ('content', 'words'),
    [
        ({'body.0.1': torch.ones(8)}, "layer 'body.0.1' in .* is a float32 tensor of shape"),
        ({'body.0.1': torch.ones(8, dtype=torch.uint8)}, 'a uint8 tensor of shape'),
        ({'body.0.1': torch.ones(2, 4) > 0}, r'a bool tensor of shape \(2, 4\)'),
        ({'body.0.1': [True] * 8}, r'is a list \[.*; expected a one-dimensional bool tensor'),
        ({3: bits('1' * 8)}, 'has the layer name 3'),
        ([bits('1' * 8)], r'holds a list \[.*; expected a dictionary'),
        ({}, 'holds no masks; expected one for each layer'),
        ({'body.0.1': Stranger()}, r'cannot be read as masks: .*test_mask_file\.Stranger'),
        ({'body.0.1': np.ones(8, bool)}, r'holds NumPy arrays; save torch\.from_numpy\(mask\)'),
        ({'body.0.1': bits('1' * 7)}, 'has 7 entries; the layer has 8 channels'),
        ({'body.0.1': bits('0' * 8)}, 'removes all 8 units'),
        ({'body.0.2': bits('1' * 8 + '0')}, r"'body\.0\.2' removes 1 channels that cannot"),
        ({'head': bits('11101')}, r"layer 'head' removes 1 channels that cannot .* output"),
        ({'body.7.1': bits('1' * 8)}, "names? layer 'body.7.1'.* does not have; did you mean"),
    ],
)
def test_files_that_hold_something_else(content: Any, words: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / 'mask.pth')
    with pytest.raises(MaskError, match=words):
        select(str(tmp_path / 'mask.pth'), traced_network(Plain))


def test_layers_that_cannot_be_cut_may_be_kept(tmp_path: Path) -> None:
    path = released(tmp_path / 'mask.pth', {'head': bits('11111'), 'body.0.1': bits('11110000')})
    assert select(path, traced_network(Plain)).removed_units == 4


def test_paths_of_any_kind(tmp_path: Path) -> None:
    path = tmp_path / 'mask.pth'
    released(path, {'body.0.1': bits('11110000')})
    graph = traced_network(Plain)
    assert select(path, graph) == select(str(path), graph)
    later = tmp_path / 'later.pth'
    released(later, {'body.0.1': bits('1000')})
    assert select([path, str(later)], graph) == select((str(path), later), graph)


def test_our_own_files_cannot_be_inverted(tmp_path: Path) -> None:
    path = tmp_path / 'masks.safetensors'
    Masks({'body.0.0': bits('11110000')}).save(path)
    for arguments in ({'true': 'remove'}, {'rename': {'body': 'x'}}):
        with pytest.raises(ConfigError, match='masks of groups, which EasyPruner wrote'):
            MaskFile(str(path), **arguments).check()
    later = released(tmp_path / 'later.pth', {'x.0.1': bits('1000')})
    actual = select([str(path), later], traced_network(Plain), rename={'x': 'body'}, true='remove')
    assert actual['body.0.0'].tolist() == bits('01110000').tolist()


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        ({'path': []}, r'path=\[\] of MaskFile'),
        ({'path': 3}, 'path=3 of MaskFile; expected the path of a file'),
        ({'path': ['x', None]}, r'path\[1\]=None of MaskFile; expected the path of a file'),
        ({'path': 'x', 'true': 'kept'}, "did you mean 'keep'"),
        ({'path': 'x', 'conflict': 'eror'}, "did you mean 'error'"),
    ],
)
def test_invalid_arguments_are_refused(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        MaskFile(**arguments)
