"""Measures the time of each mask source and budget, and of the steps of some stages.

python benchmarks/strategy_cost.py [--only NAME ...] [--out FILE]

Everything runs on torchvision's resnet18 with random weights, on images of 64 x 64, in one process
with one thread. Seconds are CPU time of the process, the median of several calls. The cards in
docs/strategies show the results: run ``python docs/cards.py`` afterwards.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
import torchvision
from coverage_page import machine
from easypruner_plugins.int8_layers import quantize
from torch import Tensor, nn

import easypruner
from easypruner import Context, Masks
from easypruner.base.files import write_json
from easypruner.base.versions import versions_of
from easypruner.plugins import load_plugins
from easypruner.plugins.registry import BUDGETS, MASK_SOURCES, build
from easypruner.strategies.budgets.latency import measure_table
from easypruner.strategies.measures.calibration import calibrate
from easypruner.strategies.measures.zeroing import zero

OUT = Path(__file__).resolve().parent / 'results' / 'strategy_cost.json'
BATCHES, SAMPLES = 2, 8
DATA = f'{BATCHES} batches of {SAMPLES} images'
SOURCES: dict[str, tuple[dict[str, Any], str]] = {
    'APoZ': ({'batches': BATCHES}, DATA),
    'MeanActivation': ({'batches': BATCHES}, DATA),
    'HRank': ({'batches': BATCHES}, DATA),
    'Taylor': ({'batches': BATCHES}, DATA),
    'Fisher': ({'batches': BATCHES}, f'{DATA}, one backward pass for each image'),
    'Hessian': ({'batches': BATCHES}, f'{DATA}, 2 samples'),
    'EagleEye': (
        {'candidates': 4, 'tolerance': 1.0, 'batches': 1, 'calibration_batches': BATCHES},
        f'4 candidates, each calibrated on {DATA} and measured on one',
    ),
    'Evolution': (
        {'population': 4, 'generations': 1, 'batches': 1, 'calibration_batches': BATCHES},
        f'4 candidates, each calibrated on {DATA} and measured on one',
    ),
    'Sensitivity': ({'steps': 1, 'batches': 1}, f'1 step, measured on one batch of {SAMPLES}'),
}
"""Source -> its arguments, and the setting as the cards show it."""
ARGUMENTS: dict[str, dict[str, Any]] = {
    'Ratio': {'keep': 0.5},
    'Threshold': {'value': 0.9},
    'GroupThreshold': {'values': {'*': 0.9}},
    'OptimalThreshold': {'share': 0.1},
}
"""Budget -> its arguments; any other keeps half."""


def main() -> None:
    """Measure everything, and write the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--only', nargs='*', help='names of strategies; by default all')
    parser.add_argument('--calls', type=int, default=5, help='measured calls of each strategy')
    parser.add_argument('--out', type=Path, default=OUT)
    args = parser.parse_args()
    torch.set_num_threads(1)
    load_plugins()
    with tempfile.TemporaryDirectory() as folder:
        found = {}
        for name, setting, call in Bench(Path(folder)).cases():
            if not args.only or name in args.only:
                found[name] = {'seconds': median_seconds(call, args.calls), 'setting': setting}
                print(f'{name}: {found[name]["seconds"]:.3g} s', flush=True)
    content = {
        'network': 'resnet18 of torchvision with random weights, on images of 64 x 64',
        'measured': f'CPU time with one thread, the median of {args.calls} calls',
        'machine': machine(),
        'versions': versions_of('torch', 'torchvision'),
        'date': datetime.now(timezone.utc).date().isoformat(),
        'results': dict(sorted(found.items())),
    }
    write_json(args.out, content)


class Bench:
    """A network with random weights, its channel graph and its data.

    Args:
        folder: a folder for files that strategies read.
    """

    def __init__(self, folder: Path) -> None:
        torch.manual_seed(0)
        self.model: nn.Module = torchvision.models.resnet18().eval()
        self.images = torch.randn(SAMPLES, 3, 64, 64)
        self.graph = easypruner.trace(self.model, self.images)
        batch = self.images, torch.randint(1000, (SAMPLES,))
        self.context = Context(
            batches=lambda: [batch] * BATCHES,
            loss=lambda model, batch: nn.functional.cross_entropy(model(batch[0]), batch[1]),
            forward=self.forward,
        )
        groups = self.graph.groups.items()
        self.masks = Masks({name: torch.arange(group.size) % 2 == 0 for name, group in groups})
        self.folder = folder

    @staticmethod
    @torch.no_grad()
    def forward(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Return the outputs of a model for a batch."""
        outputs: Tensor = model(batch[0])
        return outputs

    def cases(self) -> Iterator[tuple[str, str, Callable[[], object]]]:
        """Yield the name of each strategy, its setting and the call to measure."""
        half = build(BUDGETS, {'type': 'Macs', 'keep': 0.5})
        file = self.folder / 'masks.safetensors'
        self.masks.save(file)
        for name, cls in MASK_SOURCES.classes.items():
            arguments, setting = SOURCES.get(name, ({}, 'no data'))
            given = {'budget': half} if cls.takes_budget() else {'path': str(file)}
            source = build(MASK_SOURCES, {'type': name, **given, **arguments})
            yield name, setting, lambda s=source: s.select(self.graph, self.context)
        scores = build(MASK_SOURCES, {'type': 'L1Norm'}).ranking_scores(self.graph, self.context)
        for name in BUDGETS.classes:
            arguments, setting = ARGUMENTS.get(name, {'keep': 0.5}), 'scores of L1Norm'
            if name == 'Latency':
                arguments = {'keep': 0.7, 'table': str(self._table())}
                setting = 'scores of L1Norm, with a table'
            budget = build(BUDGETS, {'type': name, **arguments})
            yield name, setting, lambda b=budget: b(scores, self.graph, self.context)
        yield from self._steps()

    def _table(self) -> Path:
        """Measure a latency table."""
        path = self.folder / 'latency.json'
        measure_table(self.graph, path, shares=(0.5,), repeats=3, warmup=1)
        return path

    def _steps(self) -> Iterator[tuple[str, str, Callable[[], object]]]:
        def cut() -> None:
            easypruner.prune(copy.deepcopy(self.model), self.masks, example_inputs=self.images)

        yield 'Prune', 'trace a copy and cut it by masks that keep half of each group', cut
        batches = [*self.context.needed('batches', 'Calibrate')()]
        yield 'Calibrate', DATA, lambda: calibrate(self.model, batches, self.forward)
        yield 'Zero', 'masks that keep half of each group', lambda: zero(self.graph, self.masks)
        yield (
            'Quantize',
            'a copy, with one forward pass of a batch of 8 images',
            lambda: quantize(copy.deepcopy(self.model), self.images),
        )


def median_seconds(call: Callable[[], object], calls: int) -> float:
    """Return the median CPU time of some calls, after one that does not count."""
    call()
    seconds = []
    for _ in range(calls):
        start = time.process_time()
        call()
        seconds.append(time.process_time() - start)
    return round(statistics.median(seconds), 6)


if __name__ == '__main__':
    main()
