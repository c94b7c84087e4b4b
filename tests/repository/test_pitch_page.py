"""The example of a pitch tracker: its blocks run, its sounds have the pitch that they claim."""

from __future__ import annotations

import importlib
import json
import math
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

ROOT = Path(__file__).parents[2]
PAGE = ROOT / 'docs' / 'example_pitch.md'
TEXT = PAGE.read_text(encoding='utf-8')
BLOCKS = {
    text.partition('\n')[0]: re.findall(r'```python\n(.*?)```\n', text, re.DOTALL)
    for text in TEXT.split('\n## ')[1:]
}
FEW = {'FRAMES': 64, 'HELD_OUT': 8, 'UPDATES': 3}
RESULTS = ROOT / 'benchmarks' / 'results' / 'pitch.json'
EXPORTS = ('How fast it is', 'Keep it')
pytestmark = pytest.mark.filterwarnings('ignore')


class SmallCrepe(nn.Module):
    """A network with the inputs and outputs of torchcrepe's."""

    def __init__(self, size: str) -> None:
        super().__init__()
        assert size in ('tiny', 'full')
        self.wide = nn.Conv1d(1, 16, 64, stride=32)
        self.norm = nn.BatchNorm1d(16, momentum=0.0)
        self.narrow = nn.Conv1d(16, 8, 3)
        self.second = nn.BatchNorm1d(8, momentum=0.0)
        self.classifier = nn.Linear(8, 360)

    def forward(self, frames: Tensor) -> Tensor:
        hidden = self.norm(self.wide(frames[:, None]).relu())
        return self.classifier(self.second(self.narrow(hidden).relu()).mean(2)).sigmoid()


@pytest.fixture
def small_torchcrepe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a small random network in the place of the package torchcrepe."""
    package = ModuleType('torchcrepe')
    package.__file__ = str(tmp_path / 'torchcrepe' / '__init__.py')
    (tmp_path / 'torchcrepe' / 'assets').mkdir(parents=True)
    torch.manual_seed(0)
    for size in ('tiny', 'full'):
        weights = SmallCrepe(size).state_dict()
        torch.save(weights, tmp_path / 'torchcrepe' / 'assets' / f'{size}.pth')
    infer = ModuleType('infer')
    vars(package).update(Crepe=SmallCrepe, infer=infer)
    package.predict = lambda sound, rate, model: infer.model(sound[:, :1024])  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, 'torchcrepe', package)
    monkeypatch.syspath_prepend(ROOT / 'benchmarks')
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def names(small_torchcrepe: None) -> dict[str, Any]:
    """Return what the page defines, with the small network."""
    return dict(importlib.import_module('pitch').run_page(FEW))


def run(section: str, names: dict[str, Any]) -> None:
    for block in BLOCKS[section]:
        exec(block, names)


def test_the_blocks_run(names: dict[str, Any]) -> None:
    exec(BLOCKS['Prune'][1], names)
    summary = names['half'].summary
    assert 0.25 < summary.after.macs / summary.before.macs <= 0.5
    for method in names['METHODS']:
        pruned = names['prune'](method, 0.5).model
        before = {name: value.clone() for name, value in pruned.state_dict().items()}
        names['finish'](method, pruned)
        changed = [
            name for name, value in pruned.state_dict().items() if (value != before[name]).any()
        ]
        # Statistics change too, although the norm has a momentum of 0.
        assert {'wide.weight', 'norm.running_mean', 'norm.running_var'} <= set(changed)


@pytest.mark.slow
def test_the_blocks_that_export_run(names: dict[str, Any]) -> None:
    for package in ('onnx', 'onnxruntime', 'onnxscript'):
        pytest.importorskip(package)
    exec(BLOCKS['Prune'][1], names)
    for section in EXPORTS:
        run(section, names)
    frames = names['frames'][:4]
    assert torch.equal(names['again'](frames), names['half'].model.eval()(frames))


def test_no_section_is_left_out() -> None:
    with_code = {section for section, blocks in BLOCKS.items() if blocks}
    pitch = (ROOT / 'benchmarks' / 'pitch.py').read_text(encoding='utf-8')
    assert all(section in EXPORTS or repr(section) in pitch for section in with_code)


def test_a_tone_has_its_pitch_and_its_overtones(names: dict[str, Any]) -> None:
    frames, pitch = names['sounds'](50, 5, octaves=0, noise=(-200, -200))
    seconds = torch.arange(1024) / 16000
    for frame, cents in zip(frames, pitch, strict=True):
        angles = math.tau * 10 * 2 ** (cents / 1200) * seconds * torch.arange(1, 21)[:, None]
        tones = torch.cat([angles.sin(), angles.cos(), torch.ones(1, 1024)]).double()
        found = torch.linalg.lstsq(tones.T, frame.double(), driver='gelsd').solution
        assert (tones.T @ found - frame).norm() < 0.05 * frame.norm()


def test_a_glide_has_its_pitch_in_the_middle(names: dict[str, Any]) -> None:
    frames, pitch = names['sounds'](50, 6, octaves=4, noise=(-200, -200), harmonics=[1])
    changes = []
    for frame, expected in zip(frames.double(), pitch, strict=True):
        places = ((frame[:-1] < 0) & (frame[1:] >= 0)).nonzero()[:, 0]
        # Where it rises through zero, by a line between two samples; then a pitch of each period.
        rises = places + frame[places] / (frame[places] - frame[places + 1])
        cents = 1200 * torch.log2(16000 / rises.diff() / 10)
        middles = (rises[1:] + rises[:-1]) / 2
        found = np.interp(512, middles, cents)
        assert abs(found - expected) < 40
        changes.append(float(cents[-1] - cents[0]))
    # In 64 ms, a pitch glides by up to 4 octaves a second, up or down.
    assert -310 < min(changes) < -150 and 150 < max(changes) < 310


def test_pitches_are_read_between_bins(names: dict[str, Any]) -> None:
    expected = torch.tensor([2500.0, 4321.0, 8000.0])
    cents = 20 * torch.arange(360) + 1997.379
    likelihoods = torch.exp(-(((cents - expected[:, None]) / 25) ** 2) / 2)
    assert torch.allclose(names['pitches'](likelihoods), expected, atol=2)


@pytest.mark.slow
def test_the_benchmark_stores_results_and_goes_on_from_them(
    small_torchcrepe: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ('onnx', 'onnxruntime', 'onnxscript'):
        pytest.importorskip(package)
    pitch = importlib.import_module('pitch')
    out, results = tmp_path / 'page.md', tmp_path / 'pitch.json'
    command = [
        'pitch.py',
        '--quick',
        '--threads',
        '1',
        '--out',
        str(out),
        '--results',
        str(results),
    ]
    monkeypatch.setattr(pitch, 'versions_of', lambda *names: dict.fromkeys(names, '1'))
    monkeypatch.setattr(sys, 'argv', command)
    pitch.main()
    content = json.loads(results.read_text(encoding='utf-8'))
    assert set(content['methods']) == {'original'} | {
        f'{method} | {share}'
        for method in ('L1 norm', 'Taylor', 'MaskSparsity')
        for share in ('0.5', '0.25')
    }
    assert importlib.import_module('pitch_page').filled(TEXT, content) == out.read_text()
    del content['methods']['Taylor | 0.5']
    content['methods']['L1 norm | 0.5']['macs'] = 0.125
    results.write_text(json.dumps(content), encoding='utf-8')
    pitch.main()
    content = json.loads(results.read_text(encoding='utf-8'))
    assert 0.25 < content['methods']['Taylor | 0.5']['macs'] <= 0.5
    assert content['methods']['L1 norm | 0.5']['macs'] == 0.125


def test_the_tables_are_those_of_the_results(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / 'benchmarks')
    content = json.loads(RESULTS.read_text(encoding='utf-8'))
    filled = importlib.import_module('pitch_page').filled(TEXT, content)
    assert filled == TEXT, 'run python benchmarks/pitch.py'
    assert len(content['methods']) == 7 and content['times']


@pytest.mark.slow
def test_the_trained_network_hears_the_pitch(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip('torchcrepe')
    monkeypatch.syspath_prepend(ROOT / 'benchmarks')
    pitch = importlib.import_module('pitch')
    names = pitch.run_page({'FRAMES': 64, 'HELD_OUT': 40})
    assert min(names['accuracy'](names['original']).values()) > 80
    assert names['prune']('L1 norm', 0.5).summary.after.macs > 0
