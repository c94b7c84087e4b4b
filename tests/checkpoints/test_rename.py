"""Rename rules: pairs, shipped maps and files of pairs; mistakes in them are explained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision.models import resnet50

from easypruner.checkpoints.rename import Rename, rename_of
from easypruner.errors import ConfigError, EasyPrunerError
from tests.helpers.pycls_resnet import PyclsResNet


def test_rules_are_applied_in_order() -> None:
    rename = rename_of([(r'^layer', 'backbone.layer'), (r'^backbone\.', 'net.')])
    assert rename('layer1.0.conv1') == 'net.layer1.0.conv1'
    assert rename('fc.weight') == 'fc.weight'


@pytest.mark.parametrize(
    'rule',
    [
        r'^(conv|bn)=>backbone.\1',
        [r'^(conv|bn)=>backbone.\1'],
        [(r'^(conv|bn)', r'backbone.\1')],
        [[r'^(conv|bn)', r'backbone.\1']],
        ((r'^(conv|bn)', r'backbone.\1'),),
    ],
)
def test_all_ways_to_write_a_rule(rule: Any) -> None:
    assert rename_of(rule)('conv1.weight') == 'backbone.conv1.weight'


@pytest.mark.parametrize('content', [[['^a', 'b']], {'^a': 'b'}])
def test_rules_from_a_file(content: Any, tmp_path: Path) -> None:
    file = tmp_path / 'rules.json'
    file.write_text(json.dumps(content))
    for given in (file, str(file), [str(file)]):
        assert rename_of(given)('a.weight') == 'b.weight'


def test_maps_and_pairs_can_be_joined() -> None:
    rename = rename_of(['pycls->torchvision', (r'^fc', 'classifier')])
    assert rename('head.fc.bias') == 'classifier.bias'
    assert rename('s1.b1.bn.weight') == 'layer1.0.downsample.1.weight'


def test_maps_rename_modules_as_well() -> None:
    rename = rename_of('pycls->mmpretrain')
    assert rename('s3.b10.f.c_bn') == 'backbone.layer3.9.bn3'
    assert rename('stem.bn') == 'backbone.bn1'
    assert rename('fcx') == 'fcx'


@pytest.mark.parametrize('inner', ['', 'backbone.'])
def test_the_map_of_pycls_has_every_weight_of_its_resnet(inner: str) -> None:
    """The names and shapes are those of torchvision's ResNet-50, with or without mmpretrain's."""
    with torch.device('meta'):
        source, target = PyclsResNet().state_dict(), resnet50().state_dict()
    rename = rename_of('pycls->mmpretrain' if inner else 'pycls->torchvision')
    head = {'': 'fc', 'backbone.': 'head.fc'}[inner]
    expected = {
        name.replace('fc', head) if name.startswith('fc') else inner + name: tensor.shape
        for name, tensor in target.items()
    }
    renamed = rename.apply(source)
    assert {renamed[name]: tensor.shape for name, tensor in source.items()} == expected


@pytest.mark.parametrize(
    ('rule', 'message'),
    [
        ('torchvison->mmpretrain', "did you mean 'torchvision->mmpretrain'"),
        ('by structure', "did you mean 'by_structure'"),
        (['a', 'b'], 'REGEX=>REPLACEMENT'),
        ([('(a', 'b')], 'not a regular expression'),
        (r'^a=>\1', 'the expression has 0 groups'),
        (r'^(a)=>\g<nobody>', 'replacement cannot be used'),
        (3, 'expected the name of a shipped map'),
        ([('a', 3)], 'expected the name of a shipped map'),
        (['by_structure', 'a=>b'], 'leave out the other rules'),
        ('nowhere.json', "no file 'nowhere.json'"),
    ],
)
def test_mistakes(rule: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        rename_of(rule)
    assert message in str(caught.value)


@pytest.mark.parametrize('content', ['{', '[]', '3', '[["a"]]', '[["a", 1]]', '"ab"'])
def test_files_that_are_not_rules(content: str, tmp_path: Path) -> None:
    (tmp_path / 'rules.json').write_text(content)
    with pytest.raises(ConfigError, match=r'rules\.json'):
        rename_of(tmp_path / 'rules.json')


def test_two_names_that_become_one_are_refused() -> None:
    with pytest.raises(EasyPrunerError, match=r"'a\.w' and 'b\.w' the same name 'c\.w'"):
        rename_of('^[ab]=>c').apply(['a.w', 'b.w'])


def test_expressions_without_effect_are_found() -> None:
    rules = Rename((('^layer', 'stage'), ('^stage', 'x'), ('^nothing', 'y')))
    assert rules.idle(['layer1.weight']) == ['^nothing']
