"""Measures what ``Macs(for_speed=)`` saves in time and costs in accuracy, at equal MACs.

python benchmarks/for_speed.py [--seeds 0 1 2 3 4] [--shrunk]

It needs the extras ``bench`` and ``onnx``. Trained networks of ``benchmarks/grid_accuracy.py`` are
cut, fine-tuned and tested. benchmarks/results/for_speed.json is written after each run; a run that
is there is not repeated. benchmarks/latency.py writes the section of docs/latency.md.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
import warnings
from itertools import product
from pathlib import Path
from typing import Any

import torch
from coverage_page import machine
from grid_accuracy import SHRUNK, Setting
from grid_network import Data, Network, evaluate, load, mnist, save, train

import easypruner
from easypruner.base.files import write_json
from easypruner.base.versions import versions_of
from easypruner.plugins.targets import runtime_of
from easypruner.runtimes.passes import loaded
from easypruner.runtimes.timing import measure

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / 'benchmarks' / 'results' / 'for_speed.json'
RUNTIME = 'OnnxRuntime'
KEEPS = (0.5, 0.25)
FOR_SPEED = (0.0, 0.05, 0.15)
SEEDS = (0, 1, 2, 3, 4)
_REPEATS = 25


def main() -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--seeds', type=int, nargs='+', default=SEEDS)
    parser.add_argument('--shrunk', action='store_true', help='few images, to try the script')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/for_speed'))
    parser.add_argument('--results', type=Path, default=RESULTS)
    args = parser.parse_args()
    warnings.filterwarnings('ignore')
    torch.set_num_threads(1)
    setting = SHRUNK if args.shrunk else Setting()
    data = mnist(setting.images)
    content: dict[str, Any] = {'runs': {}}
    if args.results.is_file():
        content = json.loads(args.results.read_text(encoding='utf-8'))
    content |= {
        'machine': machine(),
        'versions': versions_of('torch') | runtime_of(RUNTIME).versions(),
        'epochs': setting.finetune_epochs,
    }
    for seed, keep in product(args.seeds, KEEPS):
        name = f'{keep:g} | {seed}'
        if name not in content['runs']:
            network = trained(setting, data, seed, args.work_dir)
            content['runs'][name] = compared(network, setting, data, seed, keep)
            print(name, content['runs'][name], flush=True)
            write_json(args.results, content)


def trained(setting: Setting, data: Data, seed: int, folder: Path) -> Network:
    """Return the trained network of a seed, from its file if there is one."""
    file = folder / f'{seed}.safetensors'
    torch.manual_seed(seed)
    network = Network(setting.width)
    if file.is_file():
        return load(network, file)
    train(network, data, setting.epochs, seed)
    save(network, file)
    return network


def compared(
    network: Network, setting: Setting, data: Data, seed: int, keep: float
) -> dict[str, Any]:
    """Return, for each value of ``for_speed``, what is left of time and MACs, and the accuracy."""
    cuts = {str(value): cut(network, setting, data, keep, value) for value in FOR_SPEED}
    runtime = runtime_of(RUNTIME)
    passes = [
        loaded(runtime, each, data.example, data.example.device)
        for each in (network, *cuts.values())
    ]
    times = measure(passes, threads=1, repeats=_REPEATS, clock='cpu')[1:]
    whole = easypruner.trace(network, data.example).cost().macs
    found = {}
    for (value, pruned), timed in zip(cuts.items(), times, strict=True):
        start = time.process_time()
        macs = easypruner.trace(pruned, data.example).cost().macs / whole
        train(pruned, data, setting.finetune_epochs, seed)
        found[value] = {
            'time': timed.ratio.median,
            'macs': macs,
            **evaluate(pruned, data),
            'seconds': time.process_time() - start,
        }
    return found


def cut(network: Network, setting: Setting, data: Data, keep: float, value: float) -> Network:
    """Return a copy that is cut by L1 norm to a share of its MACs."""
    pruned = copy.deepcopy(network)
    graph = easypruner.trace(
        pruned,
        data.example,
        target=runtime_of(RUNTIME),
        limits=dict(round_to='auto', max_removed=setting.max_removed),
    )
    budget = easypruner.budgets.Macs(
        keep, for_speed=value, **(dict(runtime=RUNTIME) if value else {})
    )
    masks = easypruner.sources.L1Norm(budget=budget).select(graph, easypruner.Context())
    easypruner.prune(pruned, masks, graph=graph)
    return pruned


if __name__ == '__main__':
    main()
