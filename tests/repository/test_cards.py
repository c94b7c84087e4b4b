"""The cards of strategies: they are up to date and complete, and their snippets run."""

from __future__ import annotations

import importlib
import inspect
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from mmengine.config import Config
from mmengine.registry import MODELS

from easypruner.engine.config import model_settings
from easypruner.engine.runner import Tracer
from easypruner.plugins import load_plugins
from easypruner.plugins.handlers import plugin_handlers
from easypruner.plugins.registry import BUDGETS, MASK_SOURCES, REGULARIZERS, RUNTIMES, STAGES, build
from easypruner.testing import run_stages, tiny_config

DOCS = Path(__file__).parents[2] / 'docs'
BENCHMARKS = Path(__file__).parents[2] / 'benchmarks'
FOLDER = DOCS / 'strategies'
REGISTRIES = (MASK_SOURCES, BUDGETS, REGULARIZERS, STAGES, RUNTIMES)
HEADINGS = ('When to use it', 'When it fails', 'Suggested values', 'Arguments', 'In a config',
            'Without a run', 'Cost')  # fmt: skip
QUICK = ('L1Norm', 'MaskSparsity', 'Ratio', 'Zero')
"""The strategies whose snippets run in the default tests."""
BASELINE = dict(type='Train', name='baseline', epochs=1, row='baseline')

load_plugins()
STRATEGIES = {name: cls for registry in REGISTRIES for name, cls in registry.classes.items()}
CASES = [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in STRATEGIES]


def blocks(name: str) -> dict[str, str]:
    """Return heading -> text of each part of a card."""
    text = (FOLDER / f'{name}.md').read_text(encoding='utf-8')
    parts = re.split(r'^## (.*)\n', text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def code_in(text: str) -> str:
    """Return the code of a part of a card; '' if it has none."""
    found = re.search(r'```python\n(.*?)```', text, re.DOTALL)
    return found[1] if found else ''


@pytest.fixture(scope='module')
def cards() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        # As when it runs as a script.
        patch.syspath_prepend(DOCS)
        yield importlib.import_module('cards')


def test_the_pages_are_up_to_date(cards: ModuleType) -> None:
    written = {file.name: file.read_text(encoding='utf-8') for file in FOLDER.glob('*')}
    expected = cards.pages()
    changed = {name for name in written | expected if written.get(name) != expected.get(name)}
    assert not changed, 'run python docs/cards.py'


def test_every_strategy_has_a_card_and_a_line_in_the_index() -> None:
    assert {file.stem for file in FOLDER.glob('*.md')} == {'README', *STRATEGIES}
    index = (FOLDER / 'README.md').read_text(encoding='utf-8')
    assert set(re.findall(r'^- \[(\w+)\]\(\1\.md\): ', index, re.MULTILINE)) == set(STRATEGIES)


@pytest.mark.parametrize('name', STRATEGIES)
def test_a_card_has_all_parts_and_all_arguments(name: str) -> None:
    parts = blocks(name)
    assert [heading for heading in parts if heading != 'Accuracy'] == list(HEADINGS)
    assert all(text.strip() for text in parts.values())
    rows = re.findall(r'^\| `(\w+)` \| .* \| (.*) \|$', parts['Arguments'], re.MULTILINE)
    assert dict(rows).keys() == inspect.signature(STRATEGIES[name]).parameters.keys()
    assert all(meaning.endswith('.') for _, meaning in rows)


def test_every_source_budget_and_regularizer_is_measured() -> None:
    costs, overheads = (
        json.loads((BENCHMARKS / 'results' / f'{name}.json').read_text(encoding='utf-8'))
        for name in ('strategy_cost', 'regularizer_overhead')
    )
    assert {*MASK_SOURCES.classes, *BUDGETS.classes} <= costs['results'].keys()
    assert all(entry['seconds'] > 0 for entry in costs['results'].values())
    measured = {key.partition('(')[0] for key in overheads['results'] | overheads['passes']}
    assert set(REGULARIZERS.classes) <= measured


@pytest.mark.slow
def test_the_cost_of_single_strategies_is_measured(tmp_path: Path) -> None:
    out = tmp_path / 'cost.json'
    script = BENCHMARKS / 'strategy_cost.py'
    arguments = ['--only', 'Macs', 'L1Norm', 'Zero', '--calls', '1', '--out', out]
    subprocess.run([sys.executable, script, *arguments], check=True)
    assert set(json.loads(out.read_text(encoding='utf-8'))['results']) == {'Macs', 'L1Norm', 'Zero'}


@pytest.mark.parametrize('section', ['Use when', 'Fails when', 'Values', 'Args'])
def test_an_incomplete_docstring_is_refused(cards: ModuleType, section: str) -> None:
    class Incomplete(STRATEGIES['Threshold']):  # type: ignore[misc]
        # Python 3.13 dedents docstrings.
        __doc__ = re.sub(
            rf'{section}:\n(    .*\n|\n)+',
            '',
            inspect.cleandoc(STRATEGIES['Threshold'].__doc__) + '\n',
        )

    class WithArgument(Incomplete):
        __doc__ = Incomplete.__doc__

        def __init__(self, value: float, undocumented: int = 0) -> None:
            super().__init__(value)

    with pytest.raises(ValueError, match=section if section != 'Args' else "'undocumented'"):
        cards.card('Threshold', 'budget', Incomplete if section != 'Args' else WithArgument)


@pytest.fixture(scope='module')
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the files that configs of cards read."""
    folder = tmp_path_factory.mktemp('files')
    source = dict(type='L1Norm', budget=dict(type='Macs', keep=0.5))
    run_stages([BASELINE, dict(type='SelectMask', source=source)], folder)
    shutil.copy(folder / 'run' / '01_select_mask' / 'masks.safetensors', folder)
    shutil.copy(folder / 'run' / 'pruned.pth', folder / 'trained.pth')
    config = Config(tiny_config([]))
    model = MODELS.build(model_settings(config))
    graph = Tracer(config, plugin_handlers())(model)
    STRATEGIES['Latency'].example(graph, folder)
    return folder


@pytest.mark.parametrize('name', CASES)
def test_the_config_runs(
    name: str, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(files)
    names: dict[str, Any] = {}
    exec(code_in(blocks(name)['In a config']), names)
    stages = [stage for stage in names['stages'] if stage['type'] != 'Report']
    assert f"'{name}'" in code_in(blocks(name)['In a config'])
    for runtime in [entry for stage in stages for entry in stage.get('runtimes', ())]:
        _skip_without(runtime)
    # A network as narrow as this one has no widths on the grid of a target.
    assert names.get('graph', {}).get('target', name) == name
    summary = run_stages([BASELINE, *_renamed(stages)], tmp_path)
    assert summary['rows'][0]['name'] == 'baseline'


def _skip_without(runtime: str) -> None:
    """Skip a test if a runtime cannot run here."""
    fault = build(RUNTIMES, dict(type=runtime)).fault()
    if fault:
        pytest.skip(fault)


def _renamed(stages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return stages whose rows differ from that of the baseline."""
    return [
        stage | {'row': 'evaluated'} if stage['type'] == 'Evaluate' else stage for stage in stages
    ]


@pytest.mark.parametrize('name', CASES)
def test_the_code_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = blocks(name)['Without a run'].strip()
    code = code_in(part)
    if not code:
        assert name in STAGES.classes and part.startswith('It only makes sense in a run')
        return
    for runtime in RUNTIMES.classes:
        if f"'{runtime}'" in code:
            _skip_without(runtime)
    monkeypatch.chdir(tmp_path)
    exec(code, {})
