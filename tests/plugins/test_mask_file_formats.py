"""MaskFile: files in the formats of other programs say what they say in their own."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from easypruner_plugins.mask_file import MaskFile
from torch import Tensor, nn

import easypruner
from easypruner import Context, Masks
from easypruner.errors import ConfigError
from easypruner.graph import ChannelGraph, Member
from easypruner.testing import example_inputs, random_masks, randomized_network
from easypruner.testing.networks import Plain, Residual
from tests.helpers.networks import NETWORKS, traced_network
from tests.helpers.tiny import prune, summary, tiny_config, write_config


def select(path: Any, graph: ChannelGraph, **arguments: Any) -> Masks:
    source = MaskFile(path, **arguments)
    source.check()
    source.dry_run(graph, Context())
    return source.select(graph, Context())


def half(graph: ChannelGraph) -> Masks:
    """Return masks that remove half of the units of each group, at random."""
    generator = torch.Generator().manual_seed(0)
    return Masks(
        {
            name: torch.randperm(group.size, generator=generator) >= group.size // 2
            for name, group in graph.groups.items()
        }
    )


def cutting(masks: Masks) -> Masks:
    """Return the masks that remove something."""
    return Masks({name: mask for name, mask in masks.items() if not mask.all()})


def maker(graph: ChannelGraph, group: str) -> Member:
    """Return the first weight that makes the channels of a group."""
    return graph.groups[group].producers[0]


def reader(graph: ChannelGraph, group: str) -> Member:
    """Return the first weight that reads the channels of a group."""
    return next(m for m in graph.groups[group].members if m.role == 'in')


def write_timm(path: Path, graph: ChannelGraph, masks: Masks) -> None:
    model = randomized_network(type(graph.model))
    easypruner.prune(model, masks, example_inputs=example_inputs())
    shapes = [f'{name}:{list(tensor.shape)}' for name, tensor in model.state_dict().items()]
    # timm's own files have entries of this kind.
    path.write_text('***'.join([*shapes, 'body_0_M.weight:[8, 3]']))


def units_of(graph: ChannelGraph, masks: Masks) -> dict[str, Any]:
    """Return the units of mmrazor: name -> choice, some in numbers and some in shares."""
    units = {}
    for number, (group, mask) in enumerate(masks.items()):
        member = maker(graph, group)
        size = graph.parameter(member.param).shape[member.dim]
        kept = int(mask.sum()) * member.index.shape[1]
        units[f'{member.module}_(0, {size})_{size}'] = kept if number % 2 else kept / size
    # A unit that has no layer.
    return {**units, 'input_placeholder_(0, 3)_3': 3}


def write_mmrazor(path: Path, graph: ChannelGraph, masks: Masks, dump: Any = json.dumps) -> None:
    units = {
        name: dict(init_args=dict(num_channels=9, divisor=1, min_ratio=0.9), choice=choice)
        for name, choice in units_of(graph, masks).items()
    }
    unit = dict(type='L1MutableChannelUnit', default_args={}, units=units)
    parse = dict(type='ChannelAnalyzer', demo_input=(1, 3, 8, 8), tracer_type='BackwardTracer')
    path.write_text(dump(dict(type='ChannelMutator', channel_unit_cfg=unit, parse_cfg=parse)))


def write_choices(path: Path, graph: ChannelGraph, masks: Masks) -> None:
    path.write_text(json.dumps(units_of(graph, masks), indent=4))


def write_yaml(path: Path, graph: ChannelGraph, masks: Masks) -> None:
    # With !!python/tuple, as mmrazor writes it.
    write_mmrazor(path, graph, masks, yaml.dump)


Content = dict[str, dict[str, Tensor | None]]


def nni_masks(graph: ChannelGraph, masks: Masks, of_inputs: bool) -> Content:
    """Return what get_masks() of NNI does, or with the inputs that ModelSpeedup finds as well."""
    found: Content = defaultdict(dict)
    for (param, dim), keep in graph.keep(masks).items():
        layer, _, target = param.rpartition('.')
        weight = graph.parameter(param)
        if not isinstance(weight, nn.Parameter):
            continue
        transposed = getattr(graph.model.get_submodule(layer), 'transposed', False)
        if weight.dim() > 1 and dim != int(transposed) and not of_inputs:
            continue
        mask = found[layer].setdefault(target, torch.ones_like(weight).detach())
        assert mask is not None
        mask.movedim(dim, 0)[~keep] = 0
    return found


def write_nni(path: Path, graph: ChannelGraph, masks: Masks) -> None:
    torch.save(nni_masks(graph, masks, of_inputs=False), path)


def write_nni_with_inputs(path: Path, graph: ChannelGraph, masks: Masks) -> None:
    torch.save(dict(nni_masks(graph, masks, of_inputs=True)), path)


def history(
    graph: ChannelGraph, masks: Masks, member_of: Callable[[ChannelGraph, str], Member]
) -> list[list[Any]]:
    """Return a history of Torch-Pruning: each group is cut twice, in turn with the others."""
    cuts, before = [], Masks()
    for last in (False, True):
        for group, mask in masks.items():
            member = member_of(graph, group)
            size = graph.parameter(member.param).shape[member.dim]
            left = graph.keep(before).get((member.param, member.dim), torch.ones(size) > 0)
            going = (~mask).nonzero().flatten()
            going = going[len(going) // 2 :] if last else going[: len(going) // 2]
            places = (left.cumsum(0) - 1)[member.index[going].flatten()]
            cuts.append([member.module, member.role == 'out', places.tolist()])
            keep = torch.ones_like(mask)
            keep[going] = False
            before = Masks({**before, group: before.get(group, torch.ones_like(mask)) & keep})
    return cuts


def write_history(path: Path, graph: ChannelGraph, masks: Masks) -> None:
    torch.save(history(graph, masks, maker), path)


def write_history_of_inputs(path: Path, graph: ChannelGraph, masks: Masks) -> None:
    path.write_text(json.dumps(history(graph, masks, reader)))


WIDTHS = (write_timm, write_mmrazor, write_choices, write_yaml)
CHANNELS = (write_nni, write_nni_with_inputs, write_history, write_history_of_inputs)
Writer = Callable[[Path, ChannelGraph, Masks], None]


@pytest.mark.parametrize('write', CHANNELS)
@pytest.mark.parametrize('build', NETWORKS)
def test_which_channels_stay(build: type[nn.Module], write: Writer, tmp_path: Path) -> None:
    graph = traced_network(build)
    masks = half(graph)
    write(tmp_path / 'masks', graph, masks)
    assert cutting(select(tmp_path / 'masks', graph)) == cutting(masks)


@pytest.mark.parametrize('which', ['l1', 'first'])
@pytest.mark.parametrize('write', WIDTHS)
@pytest.mark.parametrize('build', NETWORKS)
def test_how_many_channels_stay(
    build: type[nn.Module], write: Writer, which: str, tmp_path: Path
) -> None:
    graph = traced_network(build)
    masks = half(graph)
    write(tmp_path / 'structure', graph, masks)
    actual = select(tmp_path / 'structure', graph, which=which)
    assert {n: actual.kept(n) for n in actual} == {n: masks.kept(n) for n in masks}
    assert graph.cost(actual) == graph.cost(masks)
    if which == 'first':
        assert all(mask.tolist() == sorted(mask.tolist(), reverse=True) for mask in actual.values())


def test_the_largest_l1_norms_stay_and_a_warning_says_so(tmp_path: Path) -> None:
    graph = traced_network(Plain)
    path = tmp_path / 'structure.txt'
    path.write_text('body.0.0.weight:[3, 3, 3, 3]***body.1.0.weight:[12, 3, 3, 3]')
    with pytest.warns(UserWarning, match="those with the largest L1 norms do. which='l1'"):
        masks = select(path, graph)
    norms = graph.parameter('body.0.0.weight').abs().sum((1, 2, 3))
    assert set(masks['body.0.0'].nonzero().flatten().tolist()) == set(
        norms.topk(3).indices.tolist()
    )


def test_the_norms_of_coupled_layers_are_averaged(tmp_path: Path) -> None:
    graph = traced_network(Residual)
    with torch.no_grad():
        for channel, (first, second) in enumerate([(8, 1), (1, 3), (6, 2), (2, 1)] * 2):
            graph.parameter('stem.0.weight')[channel] = first
            graph.parameter('branch.2.weight')[channel] = second
    (tmp_path / 'units.json').write_text(json.dumps({'stem.0_(0, 8)_8': 4}))
    with pytest.warns(UserWarning, match='says nothing of 1 of 2 groups'):
        masks = select(tmp_path / 'units.json', graph, which='l1')
    assert masks['stem.0'].tolist() == [True, False, True, False] * 2


@pytest.mark.parametrize('write', [*WIDTHS, *CHANNELS])
def test_files_of_a_network_that_was_pruned_before(write: Writer, tmp_path: Path) -> None:
    graph, model = traced_network(Plain), randomized_network(Plain)
    first = random_masks(graph, seed=1)
    first.save(tmp_path / 'first.safetensors')
    easypruner.prune(model, first, example_inputs=example_inputs())
    now = easypruner.trace(model, example_inputs())
    second = random_masks(now, seed=2)
    if write is write_timm:
        easypruner.prune(model, second, graph=now)
        shapes = [f'{name}:{list(tensor.shape)}' for name, tensor in model.state_dict().items()]
        (tmp_path / 'second').write_text('***'.join(shapes))
    else:
        write(tmp_path / 'second', now, second)
    how = dict(which='first') if write in WIDTHS else {}
    both = select([tmp_path / 'first.safetensors', tmp_path / 'second'], graph, **how)
    if write in WIDTHS:
        assert graph.cost(both) == graph.cost(first.then(second))
        assert all(bool((first[name] | ~mask).all()) for name, mask in both.items())
    else:
        assert cutting(both) == cutting(first.then(second))


@pytest.mark.parametrize('write', [*WIDTHS, *CHANNELS])
def test_names_of_other_code_are_mapped(write: Writer, tmp_path: Path) -> None:
    inner = traced_network(Plain)
    masks = random_masks(inner, seed=3)
    write(tmp_path / 'masks', inner, masks)
    graph = easypruner.trace(nn.Sequential(randomized_network(Plain)).eval(), example_inputs())
    rename = {'(body|head|classifier|fc)': r'0.\1'}
    how = dict(which='first') if write in WIDTHS else {}
    actual = cutting(select(tmp_path / 'masks', graph, rename=rename, **how))
    assert {n.removeprefix('0.'): actual.kept(n) for n in actual} == {
        n: masks.kept(n) for n in cutting(masks)
    }


def test_arguments_that_do_not_fit_the_format(tmp_path: Path) -> None:
    graph = traced_network(Plain)
    write_timm(tmp_path / 'timm.txt', graph, random_masks(graph, seed=1))
    with pytest.raises(ConfigError, match=r"true='remove' of MaskFile .* is a structure of timm"):
        MaskFile(tmp_path / 'timm.txt', true='remove').check()
    write_history(tmp_path / 'history.pth', graph, random_masks(graph, seed=1))
    with pytest.raises(ConfigError, match=r"which='l1' of MaskFile .* a history of Torch-Pruning"):
        MaskFile(tmp_path / 'history.pth', which='l1').check()
    with pytest.raises(ConfigError, match="did you mean 'first'"):
        MaskFile('x', which='frist')


def config_of(folder: Path, units: dict[str, Any]) -> Path:
    """Return a config that cuts by a file of units."""
    (folder / 'units.json').write_text(json.dumps(units))
    source = dict(type='MaskFile', path=str(folder / 'units.json'), which='l1')
    stages = [dict(type='Evaluate', name='dense', row='dense')]
    stages += [dict(type='SelectMask', source=source), dict(type='Prune'), dict(type='Report')]
    return write_config(folder, tiny_config(stages=stages))


UNITS = {'backbone.stages.0.0.conv1_(0, 4)_4': 2, 'backbone.stages.1.0.conv1_(0, 8)_8': 0.75}


def test_the_plan_of_a_config_reads_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prune(config_of(tmp_path, UNITS), tmp_path / 'run', '--plan') == 0
    assert 'select masks by MaskFile' in capsys.readouterr().out
    config = config_of(tmp_path, {**UNITS, 'backbone.stages.0.0.conv11_(0, 4)_4': 2})
    assert prune(config, tmp_path / 'run', '--plan') == 2
    assert "did you mean 'backbone.stages.0.0.conv1'" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_cuts_as_the_file_says(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match='says nothing of 4 of 6 groups'):
        assert prune(config_of(tmp_path, UNITS), tmp_path / 'run') == 0
    masks = Masks.load(next((tmp_path / 'run').rglob('masks.safetensors')))
    assert {name: masks.kept(name) for name in masks} == {
        'backbone.stages.0.0.conv1': 2,
        'backbone.stages.1.0.conv1': 6,
    }
    rows = summary(tmp_path / 'run')['rows']
    assert rows[-1]['params'] < rows[0]['params']
