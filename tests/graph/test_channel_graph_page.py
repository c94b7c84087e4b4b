"""The page on the channel graph: its programs run as they stand, and its table is complete."""

from __future__ import annotations

import ast
import inspect
import json
import re
from itertools import pairwise
from pathlib import Path

import pytest
from mmengine.config import Config

from easypruner.graph import Axis, Coupling
from easypruner.graph.coupling import rules
from easypruner.testing.runs import tiny_config
from tests.helpers.forked import printed_by_file

DOCS = Path(__file__).parents[2] / 'docs'
PAGE = (DOCS / 'channel-graph.md').read_text(encoding='utf-8')
BLOCKS = re.findall(r'^```(\w+)\n(.*?)^```$', PAGE, re.DOTALL | re.MULTILINE)

FILES = {
    match[1]: code
    for language, code in BLOCKS
    if language == 'python' and (match := re.match(r'# (\w+\.py)\n', code))
}
PRINTED = {
    next(name for name in FILES if FILES[name] == code): text
    for (before, code), (language, text) in pairwise(BLOCKS)
    if language == 'text' and before == 'python'
}

BACKBONE = """
from easypruner.registry import MODELS
from scaled_net import ScaledNet
from torch import nn

@MODELS.register_module()
class ScaledBackbone(ScaledNet):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3)

    def forward(self, x):
        return (super().forward(x),)
"""


COMMANDS = """
from easypruner.cli.main import main

plugins = ['--plugins', 'my_plugins']
main(['plugins', *plugins])
print('---')
main(['analyze', 'config.py', '--json', *plugins])
print('---')
assert main(['prune', 'config.py', '--work-dir', 'run', *plugins]) == 0
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, code in FILES.items():
        (tmp_path / name).write_text(code, encoding='utf-8')
    return tmp_path


def test_the_page_has_programs() -> None:
    assert set(PRINTED) == {
        'look_first.py', 'without_rule.py', 'with_rule.py', 'check_gate.py', 'compare_macs.py',
    }  # fmt: skip
    assert {'scaled_net.py', 'scale_rule.py', 'gated_net.py', 'gate_rule.py'} < set(FILES)


@pytest.mark.parametrize('name', PRINTED)
def test_each_program_prints_what_the_page_says(name: str, folder: Path) -> None:
    assert printed_by_file(name, folder) == PRINTED[name]


def test_the_rule_is_a_plugin(folder: Path) -> None:
    """Every command of the page finds the rule in a plugin folder: the channels are a group."""
    (folder / 'my_plugins').mkdir()
    (folder / 'scale_rule.py').rename(folder / 'my_plugins' / 'scale_rule.py')
    (folder / 'scaled_backbone.py').write_text(BACKBONE, encoding='utf-8')
    source = dict(type='L1Norm', budget=dict(type='Ratio', keep=0.5, scope='layer'))
    content = tiny_config([dict(type='SelectMask', source=source), dict(type='Prune')])
    content['stages'].append(dict(type='Report'))
    content['model']['backbone'] = dict(type='easypruner.ScaledBackbone')
    content['model']['head']['in_channels'] = 4
    content['custom_imports'] = dict(imports=['scaled_backbone'])
    Config(content).dump(folder / 'config.py')

    (folder / 'commands.py').write_text(COMMANDS, encoding='utf-8')
    listed, analyzed = printed_by_file('commands.py', folder).split('---', 1)
    assert 'mylib::scale' in listed
    groups = json.loads(analyzed.partition('---')[0])['groups']
    assert {group['name']: group['units'] for group in groups}['backbone.first'] == 8
    record = json.loads(next((folder / 'run').rglob('architecture.json')).read_text())
    assert record['tensors']['backbone.factors']['after'] == [4]


def test_the_other_code_is_python() -> None:
    for language, code in BLOCKS:
        if language == 'python':
            ast.parse(code)


def methods_of_rules() -> set[str]:
    """Return the methods of the coupling that the rules of EasyPruner call."""
    found: set[str] = set()
    for file in Path(inspect.getfile(rules)).parent.glob('*.py'):
        tree = ast.parse(file.read_text(encoding='utf-8'))
        found |= {
            node.attr
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id == 'coupling'
        }
    return found & {name for name, _ in inspect.getmembers(Coupling, inspect.isfunction)}


def test_the_table_lists_the_methods_that_rules_use() -> None:
    listed = set(re.findall(r'^\| `(\w+)\(', PAGE, re.MULTILINE))
    assert all(callable(getattr(Coupling, name)) for name in listed)
    assert methods_of_rules() - {'explain', 'freeze_nodes'} <= listed
    for name in re.findall(r'`axis\.(\w+)', PAGE):
        assert hasattr(Axis, name)
