"""The page on plugins: its reference is up to date, its example works."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config

import easypruner
from easypruner import Budget, LayerHandler, Regularizer, Runtime, Stage, Transform, hookspecs
from easypruner.cli.main import main
from easypruner.errors import EasyPrunerError
from easypruner.pipeline.stages import Train
from easypruner.plugins import load_plugins
from easypruner.plugins.registry import MASK_SOURCES, build
from easypruner.strategies import Context
from easypruner.strategies.stages.forecast import Forecast
from easypruner.testing import (
    check_handler,
    check_runtime,
    check_stage,
    component,
    compose,
    example_inputs,
    run_stages,
    tiny_config,
)
from easypruner.testing.networks import Plain

DOCS = Path(__file__).parents[2] / 'docs'
PAGE = (DOCS / 'plugins.md').read_text(encoding='utf-8')


def hooks() -> list[ast.FunctionDef]:
    tree = ast.parse(Path(hookspecs.__file__).read_text(encoding='utf-8'))
    return [node for node in tree.body if isinstance(node, ast.FunctionDef)]


def test_the_page_is_up_to_date(tmp_path: Path) -> None:
    for file in ('generate.py', 'plugins.md'):
        (tmp_path / file).write_bytes((DOCS / file).read_bytes())
    subprocess.run([sys.executable, str(tmp_path / 'generate.py')], check=True)
    assert (tmp_path / 'plugins.md').read_text(encoding='utf-8') == PAGE, (
        'run python docs/generate.py'
    )


@pytest.mark.parametrize('hook', hooks(), ids=lambda hook: hook.name)
def test_each_hook_is_on_the_page(hook: ast.FunctionDef) -> None:
    returns = ast.unparse(hook.returns) if hook.returns else ''
    assert f'def {hook.name}({ast.unparse(hook.args)}) -> {returns}:' in PAGE
    words = re.sub(r'\W+', ' ', ast.get_docstring(hook) or '')
    assert words.split(' Args ')[0].strip() in re.sub(r'\W+', ' ', PAGE)


def test_there_are_hooks() -> None:
    assert len(hooks()) >= 3


def test_the_example_is_short_and_works(tmp_path: Path) -> None:
    found = re.search(r'<!-- example: begin -->\n+```python\n(.*?)```\n', PAGE, re.DOTALL)
    assert found is not None
    assert len(found[1].splitlines()) <= 36
    (tmp_path / 'reader_norm.py').write_text(found[1])
    load_plugins([tmp_path])
    model = Plain()
    graph = easypruner.trace(model, example_inputs())
    config = {'type': 'ReaderNorm', 'budget': {'type': 'Macs', 'keep': 0.5}}
    source = build(MASK_SOURCES, config)
    source.select(graph, Context()).check(graph)
    scores = source.score(graph, Context())
    (last,) = [s for s in scores.values() if s.numel() == model.head.in_features]
    torch.testing.assert_close(last, model.head.weight.detach().norm(dim=0))


@pytest.mark.parametrize(
    'name',
    [
        pytest.param('BestUnits', marks=pytest.mark.slow),
        pytest.param('FilterDecay', marks=pytest.mark.slow),
        'Halve',
        'Bfloat16Weights',
        'TorchPrograms',
        'Keeper',
    ],
)
def test_the_other_examples_work(name: str, tmp_path: Path) -> None:
    (code,) = (
        block for block in re.findall(r'```python\n(.*?)```\n', PAGE, re.DOTALL)
        if f'class {name}(' in block
    )  # fmt: skip
    assert len(code.splitlines()) <= 50
    (tmp_path / 'example.py').write_text(code)
    cls = component(name, tmp_path)
    if issubclass(cls, Budget | Regularizer):
        compose(cls)
    elif issubclass(cls, LayerHandler):
        (layer,) = cls.handles
        model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 1), layer(8), torch.nn.Conv2d(8, 2, 1))
        modules = check_handler(cls(), model, torch.rand(1, 3, 4, 4))
        assert modules['1'].channels < 8
    elif issubclass(cls, Runtime):
        check_runtime(cls())
    elif issubclass(cls, Transform):
        stages = [{'type': 'Train', 'epochs': 1}, {'type': f'Apply{name}'}]
        summary = run_stages(stages, tmp_path / 'run', plugins=[tmp_path])
        assert [row['name'] for row in summary['rows']] == ['short']
    else:
        summary = check_stage({'type': name}, tmp_path / 'run', plugins=[tmp_path])
        assert summary['rows'][1]['name'] == 'rounded'


def test_the_example_of_an_optimizer_handler_works(tmp_path: Path) -> None:
    class RowWise(torch.optim.Optimizer):
        def __init__(self, parameters: Any) -> None:
            super().__init__(parameters, {})
            for parameter in self.param_groups[0]['params']:
                self.state[parameter]['momentum'] = parameter.detach().clone()
                self.state[parameter]['row_mean'] = parameter.detach().flatten(1).mean(1)

    (code,) = (
        block for block in re.findall(r'```python\n(.*?)```\n', PAGE, re.DOTALL)
        if 'class RowWiseState(' in block
    )  # fmt: skip
    (tmp_path / 'example.py').write_text(code)
    handler = component('RowWiseState', tmp_path)
    handler.handles = (RowWise,)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 6, 1), torch.nn.Conv2d(6, 6, 1))
    weight = model[1].weight
    optimizer = RowWise([weight])
    means = optimizer.state[weight]['row_mean']
    easypruner.prune(
        model, {'0': torch.arange(6) < 4}, example_inputs=torch.rand(1, 3, 4, 4),
        optimizer=optimizer, optimizer_handlers=[handler()],
    )  # fmt: skip
    state = optimizer.state[weight]
    assert torch.equal(state['momentum'], weight) and torch.equal(state['row_mean'], means)


def test_a_stage_may_use_the_forecast_as_the_page_says() -> None:
    (code,) = (
        block for block in re.findall(r'```python\n(.*?)```\n', PAGE, re.DOTALL)
        if block.startswith('def forecast(')
    )  # fmt: skip
    names: dict[str, Any] = {'Forecast': Forecast, 'EasyPrunerError': EasyPrunerError}
    exec(code, names)
    looking = type('Looking', (Stage,), {'forecast': names['forecast'], 'run': print})()
    graph = easypruner.trace(Plain(), example_inputs())
    before = Forecast(Config(), seed=0, graph=graph, epoch_length=1)
    assert looking.forecast(before) is before
    with pytest.raises(EasyPrunerError, match='before Prune'):
        looking.forecast(dataclasses.replace(before, cut=True))


def test_regularizers_have_the_members_that_the_page_names() -> None:
    for name in ('largest', 'needed_reach', 'penalty', 'add_gradient'):
        assert f'`{name}' in PAGE and hasattr(Regularizer, name)
    assert 'regularize_every' in inspect.signature(Train).parameters


def section_of(page: str, heading: str) -> list[str]:
    """Return the Python code of a section of a page."""
    parts = (DOCS / page).read_text(encoding='utf-8').split('\n## ')
    (text,) = (part for part in parts if part.startswith(f'{heading}\n'))
    return re.findall(r'```python\n(.*?)```\n', text, re.DOTALL)


@pytest.mark.in_ci
def test_the_example_of_a_data_set_trains_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, settings, _ = section_of('your_data.md', 'In a config')
    (tmp_path / 'my_config.py').write_text(settings)
    given = Config.fromfile(tmp_path / 'my_config.py', import_custom_modules=False)
    tiny = Config(tiny_config([{'type': 'Train', 'epochs': 1, 'row': 'own'}, {'type': 'Report'}]))
    tiny.merge_from_dict({'custom_imports': given.custom_imports})
    tiny.model.head.num_classes = tiny.data_preprocessor.num_classes = 2
    tiny.train_dataloader = tiny.val_dataloader = given.train_dataloader
    tiny.dump(tmp_path / 'my_config.py')
    arguments = ['prune', str(tmp_path / 'my_config.py'), '--work-dir', str(tmp_path / 'run')]
    assert main(arguments) == 2
    assert "No module named 'my_data'\nThe folder of the module" in capsys.readouterr().err
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / 'my_data.py').write_text(code)
    assert main(arguments) == 0
    assert (tmp_path / 'run' / 'pruned.pth').is_file()


@pytest.mark.parametrize(('number', 'module'), [(0, 'my_backbone'), (1, 'my_model')])
def test_the_examples_of_a_model_are_trained_and_pruned(
    number: int, module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, settings = section_of('your_model.md', 'In a config')[2 * number : 2 * number + 2]
    assert f'Save it as {module}.py' in code
    (tmp_path / f'{module}.py').write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    source = {'type': 'BNScale', 'budget': {'type': 'Macs', 'keep': 0.5}}
    stages = [
        {'type': 'Train', 'epochs': 1, 'row': 'whole'},
        {'type': 'SelectMask', 'source': source},
        {'type': 'Prune'},
        {'type': 'Report'},
    ]
    content = tiny_config(stages)
    names: dict[str, Any] = {}
    exec(settings, names)
    content.update({name: names[name] for name in names if not name.startswith('_')})
    Config(content).dump(tmp_path / 'my_config.py')
    arguments = ['prune', str(tmp_path / 'my_config.py'), '--work-dir', str(tmp_path / 'run')]
    assert main(arguments) == 0
    summary = json.loads((tmp_path / 'run' / 'summary.json').read_text(encoding='utf-8'))
    whole, pruned = (row['macs'] for row in summary['rows'])
    assert 0.3 * whole < pruned <= 0.5 * whole
