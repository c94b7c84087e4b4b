"""Every Python block of the README and the docs is run by a test."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmpretrain.registry import DATASETS
from PIL import Image
from torch import Tensor, nn

import easypruner
from easypruner import Masks, Progress
from easypruner.graph import ChannelGraph
from easypruner.plugins import load_plugins
from easypruner.plugins.registry import STAGES, build
from easypruner.testing import example_inputs, randomized_network, run_stages, tiny_config
from easypruner.testing.networks import Residual

from .code_blocks import CARD, HERE, TESTED, WHOLE

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', *sorted((ROOT / 'docs').rglob('*.md'))]


def _markdown_links() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        'markdown_links', ROOT / 'docs' / 'markdown_links.py'
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


blocks_of = _markdown_links().blocks_of


def python_blocks(page: Path) -> dict[str, list[str]]:
    """Return section -> the Python blocks of a page."""
    found: dict[str, list[str]] = defaultdict(list)
    for block in blocks_of(page.read_text(encoding='utf-8')):
        if block.language == 'python':
            found[block.section].append(block.text)
    return found


@pytest.mark.parametrize('page', PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_block_has_a_test(page: Path) -> None:
    name = page.relative_to(ROOT).as_posix()
    if name in WHOLE:
        assert page.name in (ROOT / WHOLE[name]).read_text(encoding='utf-8')
        return
    is_card = name.startswith('docs/strategies/') and page.name != 'README.md'
    tested = CARD if is_card else TESTED.get(name, {})
    for section, blocks in python_blocks(page).items():
        assert len(tested.get(section, [])) == len(blocks), (
            f'add the blocks of {section!r} to tests/repository/code_blocks.py'
        )


@pytest.mark.parametrize('page', TESTED)
def test_the_tests_exist(page: str) -> None:
    sections = {section: len(blocks) for section, blocks in python_blocks(ROOT / page).items()}
    assert {section: len(tests) for section, tests in TESTED[page].items()} == sections
    for test in {test for tests in TESTED[page].values() for test in tests} - {HERE}:
        file, name = test.split('::')
        assert re.search(rf'def {name}\(', (ROOT / file).read_text(encoding='utf-8')), test


def test_the_languages_are_known() -> None:
    """A block is Python, commands, or output."""
    for page in PAGES:
        for block in blocks_of(page.read_text(encoding='utf-8')):
            assert block.language in ('python', '', 'bash', 'text'), (page.name, block.line)


def block(page: str, section: str, number: int = 0) -> str:
    """Return a block that the registry says is run here."""
    assert TESTED[page][section][number] == HERE
    return python_blocks(ROOT / page)[section][number]


@pytest.mark.slow
def test_the_pages_of_your_own_model_and_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip('timm')
    pytest.importorskip('transformers')
    monkeypatch.chdir(tmp_path)
    for page in ('docs/your_model.md', 'docs/your_data.md'):
        names: dict[str, Any] = {'__name__': '__main__'}
        for section, tests in TESTED[page].items():
            for number, test in enumerate(tests):
                if test == HERE and section != 'Images in folders':
                    exec(block(page, section, number), names)
        assert names['slimmed'].summary.after.macs < names['slimmed'].summary.before.macs


@pytest.mark.in_ci
def test_the_folder_of_images_is_a_data_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(block('docs/your_data.md', 'Images in folders'), names)
    dataset = names['train_dataloader']['dataset']
    for name in ('rose', 'tulip'):
        folder = Path(dataset['data_root'], name)
        folder.mkdir(parents=True)
        Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(folder / '1.png')
    built = DATASETS.build({**dataset, '_scope_': 'mmpretrain'})
    assert list(built.CLASSES) == ['rose', 'tulip'] and len(built) == 2
    assert built[1]['inputs'].shape == (3, 224, 224)


def without_the_first(graph: ChannelGraph) -> Masks:
    """Return masks that remove the first unit of each group that has several."""
    return Masks({n: torch.arange(g.size) >= min(1, g.size - 1) for n, g in graph.groups.items()})


def names_for_the_graph() -> dict[str, Any]:
    model = randomized_network(Residual)
    graph = easypruner.trace(model, example_inputs())
    return {
        'easypruner': easypruner,
        'torch': torch,
        'nn': nn,
        'Progress': Progress,
        'model': model,
        'images': example_inputs(),
        'graph': graph,
        'masks': without_the_first(graph),
        'optimizer': torch.optim.SGD(model.parameters(), lr=0.1),
        'loader': [(example_inputs(), torch.tensor([1, 0]))],
        'epochs': 1,
    }


def test_what_the_readme_restricts(monkeypatch: pytest.MonkeyPatch) -> None:
    import torchvision

    monkeypatch.setattr(torchvision.models, 'vit_b_16', small_vit)
    names: dict[str, Any] = {}
    exec(block('README.md', 'Prune in your own code', 1).replace('224', '32'), names)
    groups = set(names['graph'].groups)
    assert any('encoder_layer_1.mlp' in name for name in groups)
    assert not any('encoder_layer_0.mlp' in name for name in groups)


def small_vit() -> nn.Module:
    from torchvision.models import VisionTransformer

    return VisionTransformer(32, 16, num_layers=2, num_heads=4, hidden_dim=32, mlp_dim=64)


@pytest.mark.parametrize(
    ('page', 'section', 'number'),
    [
        ('README.md', 'Prune in your own code', 2),
        ('docs/plugins.md', 'A regularizer', 1),
    ],
)
def test_code_around_a_graph(page: str, section: str, number: int) -> None:
    names = names_for_the_graph()
    names['regularizer'] = easypruner.regularizers.MaskSparsity(1e-2)
    exec(block(page, section, number), names)
    if 'pusher' in names:
        names['pusher'].close()


class SqueezeExcite(nn.Sequential):
    """A layer that the page names."""


class Staged(nn.Module):
    """Has the modules that the page names."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 8, 16, 24, 32)
        layers = [nn.Conv2d(a, b, 1) for a, b in pairwise(widths)]
        self.stages = nn.Sequential(*(nn.Sequential(layer, nn.ReLU()) for layer in layers))
        self.extra = SqueezeExcite(nn.Conv2d(32, 12, 1))
        self.head = nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.extra(self.stages(x)).mean((2, 3)))


@pytest.mark.in_ci
def test_what_may_go() -> None:
    class Named(Staged):
        def forward(self, x: Tensor) -> Any:
            return {'logits': super().forward(x)}

    names = names_for_the_graph() | {'model': Named(), 'images': torch.rand(1, 3, 4, 4)}
    exec(block('docs/channel-graph.md', 'What may go'), names)
    assert set(names['graph'].groups) == {'stages.1.0', 'stages.2.0', 'stages.3.0'}


def test_several_calls() -> None:
    """On a small language model in place of a Mamba: it decodes with a cache."""
    transformers = pytest.importorskip('transformers')
    config = transformers.MambaConfig(
        hidden_size=16, state_size=4, num_hidden_layers=1, vocab_size=20
    )
    model = transformers.MambaForCausalLM(config).eval()
    tokens = torch.tensor([[1, 2, 3]])
    graph = easypruner.trace(model, dict(input_ids=tokens))
    names = names_for_the_graph() | {
        'model': model, 'tokens': tokens, 'token': tokens[:, :1], 'other_batch': tokens[:, :2],
        'masks': without_the_first(graph),
    }  # fmt: skip
    exec(block('docs/channel-graph.md', 'From a forward pass to groups'), names)
    assert set(names['graph'].groups) == set(graph.groups)


def test_a_layer_handler_of_an_unknown_layer() -> None:
    names: dict[str, Any] = {}
    exec(block('docs/channel-graph.md', 'Layer handlers'), names)
    layer = nn.Identity()
    names['GateHandler']().resize(layer, {'weight': (3, 2)})
    assert layer.channels == 3


def test_the_stage_with_the_source_of_a_plugin(tmp_path: Path) -> None:
    code = python_blocks(ROOT / 'docs' / 'plugins.md')['A mask source in 30 lines'][0]
    (tmp_path / 'reader_norm.py').write_text(code)
    load_plugins([tmp_path])
    stage = build(STAGES, eval(block('docs/plugins.md', 'A mask source in 30 lines', 1)))
    assert type(stage).__name__ == 'SelectMask'


def test_the_entry_point_is_one_of_setup() -> None:
    code = block('docs/plugins.md', 'Where plugins are found').replace('..., ', '').strip()
    given = eval(code, {'setup': dict})
    (name,) = given['entry_points']['easypruner']
    assert re.fullmatch(r'\w+ = [\w.]+', name)
    assert 'easypruner' in (ROOT / 'setup.py').read_text(encoding='utf-8')


@pytest.mark.slow
def test_the_stages_of_the_readme(tmp_path: Path) -> None:
    names: dict[str, Any] = {}
    exec(block('README.md', 'A config'), names)
    for stage in names['stages']:
        if 'epochs' in stage:
            stage['epochs'] = 1
    summary = run_stages(names['stages'], tmp_path)
    assert [row['name'] for row in summary['rows']][-1] == 'finetuned'


def test_tensorboard_gets_the_scalars(tmp_path: Path) -> None:
    pytest.importorskip('tensorboard')
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from easypruner.cli.main import main

    names: dict[str, Any] = {}
    exec(block('docs/running.md', 'Logs and TensorBoard'), names)
    stages = [{'type': 'Train', 'name': 'baseline', 'epochs': 1, 'row': 'whole'}]
    Config({**tiny_config(stages), 'visualizer': names['visualizer']}).dump(tmp_path / 'my.py')
    assert main(['prune', str(tmp_path / 'my.py'), '--work-dir', str(tmp_path / 'run')]) == 0
    stage = tmp_path / 'run' / '00_baseline'
    assert list(stage.glob('*/vis_data/scalars.json'))
    tags = set()
    for file in stage.glob('*/vis_data/events.*'):
        events = EventAccumulator(str(file))
        events.Reload()
        tags |= set(events.Tags()['scalars'])
    assert {'loss', 'lr', 'accuracy/top1'} <= tags
