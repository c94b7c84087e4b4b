"""benchmarks/for_speed.py: cuts have equal MACs, finished runs are kept, differences are paired."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.benchmarks import table
from tests.helpers.clocked import Clocked, use_clock


@pytest.mark.in_ci
def test_cuts_have_equal_macs_and_are_not_run_again(
    module: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip('mlxtend')
    use_clock(monkeypatch, tmp_path / 'cache')
    benchmark, network = module('for_speed'), module('grid_network')
    monkeypatch.setattr(benchmark, 'runtime_of', lambda name: Clocked())
    monkeypatch.setattr(benchmark, 'RUNTIME', Clocked())
    small = module('grid_accuracy').Setting(width=8, epochs=1, finetune_epochs=1)
    monkeypatch.setattr(benchmark, 'SHRUNK', small)
    images = torch.randn(72, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    data = network.Data(images, torch.arange(72) % 10, images[:20], torch.arange(20) % 10)
    monkeypatch.setattr(benchmark, 'mnist', lambda limit: data)
    results = tmp_path / 'for_speed.json'
    monkeypatch.setattr('sys.argv', ['', '--shrunk', '--seeds', '0', '--work-dir', str(tmp_path),
                                     '--results', str(results)])  # fmt: skip
    benchmark.main()
    text = results.read_text(encoding='utf-8')
    content = json.loads(text)
    assert list(content['runs']) == ['0.5 | 0', '0.25 | 0']
    for name, cuts in content['runs'].items():
        assert list(cuts) == ['0.0', '0.05', '0.15']
        asked = float(name.split(' | ')[0])
        assert all(0.7 * asked < cut['macs'] <= asked for cut in cuts.values())
    benchmark.main()
    assert results.read_text(encoding='utf-8') == text


def test_differences_are_paired(module: Any) -> None:
    def cut(accuracy: float, time: float) -> dict[str, float]:
        return {'accuracy': accuracy, 'time': time, 'macs': 0.5}

    runs = {
        f'0.5 | {seed}': {'0.0': cut(free, 0.6), '0.1': cut(fast, 0.5)}
        for seed, (free, fast) in enumerate([(70.0, 71.0), (80.0, 81.5), (90.0, 92.0)])
    }
    content = {'runs': runs, 'epochs': 1, 'machine': 'a machine', 'versions': {'torch': '2'}}
    first, second = table(module('for_speed_page').section(content), '| MACs asked')
    assert first == ['0.5', '0.0', '3', '0.500', '0.600', '80.00', '']
    assert second == ['0.5', '0.1', '3', '0.500', '0.500', '81.50', '+1.50 (+0.26 to +2.74)']
