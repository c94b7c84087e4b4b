"""The page on int8: its blocks run one after the other, and its tables are those of the results."""

from __future__ import annotations

import importlib
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import sklearn.datasets
import torch

from easypruner.cli.main import main
from easypruner.testing import run_stages

ROOT = Path(__file__).parents[2]
PAGE = ROOT / 'docs' / 'quantization.md'
TEXT = PAGE.read_text(encoding='utf-8')
BLOCKS = {
    text.partition('\n')[0]: re.findall(r'```python\n(.*?)```\n', text, re.DOTALL)
    for text in TEXT.split('\n## ')[1:]
}
PACKAGES = {
    'ONNX Runtime': ('onnx', 'onnxruntime', 'onnxscript'),
    'OpenVINO': ('openvino', 'nncf'),
    'torchao': ('torchao',),
}
pytestmark = pytest.mark.filterwarnings('ignore')


@pytest.fixture(scope='module')
def names(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Run the section that trains and prunes on a few digits; return the variables."""
    names: dict[str, Any] = {'__name__': '__main__'}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(names.setdefault('folder', tmp_path_factory.mktemp('quantization')))
        few = sklearn.datasets.load_digits()
        few.images, few.target = few.images[:320], few.target[:320]
        patch.setattr(sklearn.datasets, 'load_digits', lambda: few)
        run('A pruned network', names)
    return names


def run(section: str, names: dict[str, Any]) -> None:
    for package in PACKAGES.get(section, ()):
        pytest.importorskip(package)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(names['folder'])
        for block in BLOCKS[section]:
            exec(block.replace('EPOCHS = 6', 'EPOCHS = 1'), names)


def error(names: dict[str, Any], quantized: Any) -> float:
    """Return the relative error of a quantized network's logits."""
    images = names['images'][:32]
    with torch.no_grad():
        logits, expected = torch.as_tensor(quantized(images)), names['pruned'](images)
    return float((logits - expected).norm() / expected.norm())


def test_the_network_is_pruned_to_the_grid(names: dict[str, Any]) -> None:
    widths = {len(m.weight) for m in names['pruned'].modules() if hasattr(m, 'weight')}
    assert widths - {10} <= set(range(16, 129, 16))
    before, after = (
        sum(p.numel() for p in names[name].parameters()) for name in ('full', 'pruned')
    )
    assert after < 0.9 * before


def test_torchao(names: dict[str, Any]) -> None:
    run('torchao', names)
    assert names['left_in_float'](names['pruned']) == ['6', '8']
    assert 0 < error(names, names['again']) < 0.05
    int4 = names['quantized']
    fits = [n for n, m in int4.named_modules() if names['fits'](m, n)]
    assert names['left_in_float'](int4) == [n for n in ('6', '8') if n not in fits]
    assert 0 < error(names, lambda images: int4(images.bfloat16()).float()) < 0.3


@pytest.mark.slow
def test_onnx_runtime_openvino_and_a_run(names: dict[str, Any]) -> None:
    for section, path in {'ONNX Runtime': 'int8.onnx', 'OpenVINO': 'int8.xml'}.items():
        run(section, names)
        runner = names['run_onnx' if path.endswith('onnx') else 'run_openvino']
        assert 0 < error(names, runner(names['folder'] / path)) < 0.2
    import onnx

    kinds = {node.op_type for node in onnx.load(names['folder'] / 'int8.onnx').graph.node}
    assert {'Conv', 'Gemm', 'QuantizeLinear'} <= kinds
    prepare_the_run(names)
    run('From a run', names)
    assert (names['folder'] / 'work_dirs' / 'l1' / 'int8.bin').is_file()


def prepare_the_run(names: dict[str, Any]) -> None:
    """Make the work directory that the commands of the page make, and export it as they do."""
    stages = [
        dict(type='Train', epochs=1, row='baseline'),
        dict(type='SelectMask', source=dict(type='L1Norm', budget=dict(type='Macs', keep=0.5))),
        dict(type='Prune'),
    ]
    run_stages(stages, names['folder'] / 'tiny')
    (names['folder'] / 'work_dirs').mkdir()
    (names['folder'] / 'tiny' / 'run').rename(names['folder'] / 'work_dirs' / 'l1')
    commands = re.findall(r'^easypruner (.*)$', TEXT, re.MULTILINE)
    (export,) = (command for command in commands if command.startswith('export'))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(names['folder'])
        assert main(shlex.split(export)) == 0


def test_every_section_is_run() -> None:
    with_code = {section for section, blocks in BLOCKS.items() if blocks}
    assert with_code == {'A pruned network', 'ONNX Runtime', 'OpenVINO', 'torchao', 'From a run'}


def test_the_tables_are_those_of_the_results(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / 'benchmarks')
    results = ROOT / 'benchmarks' / 'results' / 'quantized.json'
    content = json.loads(results.read_text(encoding='utf-8'))
    assert set(content) == {'accuracy', 'latency', 'widths'}
    filled = importlib.import_module('quantized_page').filled(TEXT, content)
    assert filled == TEXT, 'run python benchmarks/quantized.py --parts'


@pytest.mark.slow
def test_the_benchmark_runs_on_a_small_network(tmp_path: Path) -> None:
    for package in (*PACKAGES['ONNX Runtime'], *PACKAGES['OpenVINO']):
        pytest.importorskip(package)
    out, results = tmp_path / 'page.md', tmp_path / 'results.json'
    command = [sys.executable, str(ROOT / 'benchmarks' / 'quantized.py'), '--quick']
    command += ['--parts', 'latency', 'widths', '--out', str(out), '--results', str(results)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(results.read_text(encoding='utf-8'))
    for rows in found['latency']['results']['squeezenet1_1'].values():
        whole = rows['unpruned, float']
        assert whole['ratio'] == 1
        assert rows['unpruned, int8']['bytes'] < whole['bytes'] / 3
        assert rows['pruned, round_to=16, int8']['bytes'] < rows['unpruned, int8']['bytes']
    assert set(found['widths']['results']['convolution']['OpenVINO, int8']) == {'64', '63'}
    page = out.read_text(encoding='utf-8')
    assert '| squeezenet1_1 | OnnxRuntime, float |' in page
    assert '- squeezenet1_1 in OpenVINO, of its unpruned int8 time: ' in page
