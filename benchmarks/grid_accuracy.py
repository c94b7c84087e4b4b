"""Measures what widths on a grid cost in accuracy at equal MACs, and writes docs/grid.md.

python benchmarks/grid_accuracy.py run    trains, cuts, fine-tunes and evaluates
python benchmarks/grid_accuracy.py page   writes docs/grid.md from the results

It needs the extra ``bench``. Results are stored in benchmarks/results, after each run. A run that
is there is not repeated, so the script can be stopped at any time and started again.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch
from coverage_page import machine
from grid_network import DEPTH, Data, Network, Trained, evaluate, load, mnist, save, train

import easypruner
from easypruner.base.files import write_json
from easypruner.base.versions import versions_of

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / 'benchmarks' / 'results' / 'grid_accuracy.json'
GRIDS = (1, 4, 8, 16)
KEEPS = (0.5, 0.25)
SOURCES = ('L1Norm', 'BNScale')
SEEDS = (0, 1, 2, 3, 4)


@dataclass(frozen=True)
class Setting:
    """What is the same in all runs.

    Attributes:
        width: the channels of the network's first stage.
        epochs: of the baseline.
        sparse_epochs: of the push before BNScale chooses.
        finetune_epochs: of the training after the cut.
        reach: of the push.
        max_removed: the largest share of a group that may be removed.
        images: the largest number of images to train on.
    """

    width: int = 32
    epochs: int = 8
    sparse_epochs: int = 4
    finetune_epochs: int = 7
    reach: float = 2.5
    max_removed: float = 0.7
    images: int = 4000


SHRUNK = Setting(epochs=1, sparse_epochs=1, finetune_epochs=1, images=128)


@dataclass(frozen=True)
class Job:
    """A cut of a trained network."""

    seed: int
    source: str
    keep: float
    grid: int

    @property
    def name(self) -> str:
        """A name that no other job has."""
        return f'{self.source} | {self.keep:g} | {self.grid} | {self.seed}'


def main() -> None:
    """Run what is missing, or write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('part', choices=['run', 'page'])
    parser.add_argument('--seeds', type=int, nargs='+', default=SEEDS)
    parser.add_argument('--sources', nargs='+', choices=SOURCES, default=SOURCES)
    parser.add_argument('--shrunk', action='store_true', help='few images, to try the script')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/grid'))
    parser.add_argument('--results', type=Path, default=RESULTS)
    parser.add_argument('--out', type=Path, default=ROOT / 'docs' / 'grid.md')
    args = parser.parse_args()
    if args.part == 'page':
        from grid_page import write_page

        write_page(args.results, args.out)
        return
    torch.set_num_threads(1)
    setting = SHRUNK if args.shrunk else Setting()
    study = Study(setting, mnist(setting.images), args.work_dir, args.results)
    for seed in args.seeds:
        study.train_uncut(seed)
    # Seeds vary before shares: a study that is stopped has all seeds of the first shares.
    for source, keep, seed, grid in product(args.sources, KEEPS, args.seeds, GRIDS):
        study.do(Job(seed, source, keep, grid))


class Study:
    """The runs of a setting, with their results in a file.

    Args:
        setting: what is the same in all runs.
        data: the images.
        folder: for the weights of trained networks.
        file: the results, which may have those of an earlier start.

    Raises:
        SystemExit: the results in the file belong to another setting.
    """

    def __init__(self, setting: Setting, data: Data, folder: Path, file: Path) -> None:
        self._setting, self._data, self._folder, self._file = setting, data, folder, file
        graph = easypruner.trace(Network(setting.width), data.example)
        self._content: dict[str, Any] = {
            'setting': asdict(setting),
            'network': {
                'depth': DEPTH,
                'macs': graph.cost().macs,
                'test_images': len(data.test_images),
            },
            'trained': {},
            'runs': {},
            'machine': machine(),
            'versions': versions_of('torch'),
        }
        if file.is_file():
            earlier = json.loads(file.read_text(encoding='utf-8'))
            if earlier['setting'] != self._content['setting']:
                raise SystemExit(
                    f'{file} has results of the setting {earlier["setting"]}, but this is '
                    f'{self._content["setting"]}; give another file with --results'
                )
            self._content = earlier

    def do(self, job: Job) -> None:
        """Run a job, unless the file has its result."""
        if job.name in self._content['runs']:
            return
        network = self._trained(job.source, job.seed)
        start = time.process_time()
        limits = dict(round_to=job.grid, max_removed=self._setting.max_removed)
        graph = easypruner.trace(network, self._data.example, limits=limits)
        kind = getattr(easypruner.sources, job.source)
        source = kind(budget=easypruner.budgets.Macs(job.keep))
        masks = source.select(graph, easypruner.Context())
        left = graph.cost(masks).macs / graph.cost().macs
        easypruner.prune(network, masks, graph=graph)
        result = {
            **evaluate(self._tuned(network, job.seed), self._data),
            'macs': left,
            'widths': [int(mask.sum()) for mask in masks.values()],
            'seconds': time.process_time() - start,
        }
        self._store('runs', job.name, result)

    def train_uncut(self, seed: int) -> None:
        """Train a baseline on, for as long as a cut network is trained."""
        self._once('uncut', seed, lambda: self._tuned(self._trained('L1Norm', seed), seed))

    def _tuned(self, network: Network, seed: int) -> Network:
        train(network, self._data, self._setting.finetune_epochs, seed)
        return network

    def _trained(self, source: str, seed: int) -> Network:
        """Return the network that a source cuts; it is trained once for all cuts."""
        setting = self._setting
        if source == 'L1Norm':
            return self._once('baseline', seed, lambda: self._baseline(seed))
        name = f'pushed by GlobalSparsity, reach {setting.reach:g}'
        return self._once(name, seed, lambda: self._pushed(seed))

    def _baseline(self, seed: int) -> Network:
        torch.manual_seed(seed)
        network = Network(self._setting.width)
        train(network, self._data, self._setting.epochs, seed)
        return network

    def _pushed(self, seed: int) -> Network:
        setting = self._setting
        network = self._trained('L1Norm', seed)
        graph = easypruner.trace(network, self._data.example)
        push = dict(graph=graph, regularizer='GlobalSparsity', reach=setting.reach)
        train(network, self._data, setting.sparse_epochs, seed, push)
        return network

    def _once(self, name: str, seed: int, make: Trained) -> Network:
        """Return a trained network from its file; make and store it if there is none."""
        file = self._folder / f'{name.split()[0]}_{seed}.safetensors'
        if file.is_file():
            return load(Network(self._setting.width), file)
        start = time.process_time()
        network = make()
        save(network, file)
        result = {**evaluate(network, self._data), 'seconds': time.process_time() - start}
        self._store('trained', f'{name} | {seed}', result)
        return network

    def _store(self, kind: str, name: str, result: dict[str, Any]) -> None:
        print(f'{name}: {result}', flush=True)
        self._content[kind][name] = result
        write_json(self._file, self._content)


if __name__ == '__main__':
    main()
