"""Asks the budget Latency for shares of the time, and measures afresh what it delivers.

python benchmarks/latency_budget.py [--networks NAME ...] [--runtimes NAME ...] [--keep 0.7 0.5]
    [--side 224] [--repeats 50] [--again]

Writes benchmarks/results/latency_budget.json after each cut. What the file already has is not
measured again. The times of layers are measured before a search where the user's cache does not
have them: the time of a search is that with a warm table. To measure afresh, the pruned and the
unpruned network are loaded anew, up to 48 times, because where they are in the memory changes their
time; their passes alternate in one process, with one thread and a batch of one image. All times are
those of the process's CPU, so that other load on the machine hardly matters.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from time import process_time
from typing import Any

import torch
import torchvision
from latency_budget_page import section

import easypruner
from easypruner.base.cache import processor
from easypruner.base.files import write_json
from easypruner.base.modules import copy_of
from easypruner.plugins.targets import runtime_of
from easypruner.runtimes.passes import loaded
from easypruner.runtimes.timing import measure
from easypruner.strategies.budgets.latency import bench_of

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / 'benchmarks' / 'results' / 'latency_budget.json'
NETWORKS = ('resnet18', 'resnet50', 'mobilenet_v2')
RUNTIMES = ('OnnxRuntime', 'TorchChannelsLast', 'OpenVINO')
_REPEATS, _WARMUP, _PLACES = 20, 3, 48
_SEED = 0


def main() -> None:
    """Measure what is missing, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--networks', nargs='+', default=NETWORKS, metavar='NAME')
    parser.add_argument('--runtimes', nargs='+', default=RUNTIMES, metavar='NAME')
    parser.add_argument('--keep', nargs='+', type=float, default=(0.7, 0.5), metavar='SHARE')
    parser.add_argument('--side', type=int, default=224, help='pixels of a side of the image')
    parser.add_argument('--repeats', type=int, default=50, help='rounds of the fresh measurement')
    parser.add_argument('--again', action='store_true', help='measure everything again')
    parser.add_argument('--results', type=Path, default=RESULTS)
    args = parser.parse_args()
    warnings.filterwarnings('ignore')
    torch.set_num_threads(1)
    content = _load(args.results, args.again) | {'processor': processor(), 'side': args.side}
    for name in args.runtimes:
        content['versions'] |= runtime_of(name).versions()
    for network in args.networks:
        for runtime in args.runtimes:
            known = content['cuts']
            missing = [keep for keep in args.keep if _key(network, runtime, keep) not in known]
            for key, row in _cuts(network, runtime, missing, args.side, args.repeats):
                known[key] = row
                write_json(args.results, content)
                print(key, json.dumps(row), flush=True)
    print(section(content))


def _load(path: Path, again: bool) -> dict[str, Any]:
    content = {} if again or not path.is_file() else json.loads(path.read_text())
    return {'cuts': {}, 'versions': {}, **content}


def _key(network: str, runtime: str, keep: float) -> str:
    return f'{network} {runtime} {keep:g}'


def _cuts(
    network: str, name: str, shares: list[float], side: int, repeats: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the key and the figures of each cut."""
    if not shares:
        return
    torch.manual_seed(_SEED)
    model = getattr(torchvision.models, network)().eval()
    image, runtime = torch.randn(1, 3, side, side), runtime_of(name)
    graph = easypruner.trace(model, image, target=runtime)
    start = process_time()
    bench = bench_of(graph, runtime, _REPEATS, _WARMUP, 'cpu')
    loading = process_time() - start
    _ = bench.forecast
    anew = loaded(runtime, copy_of(model), image, image.device, _PLACES)
    for keep in shares:
        bench.shares.clear()
        budget = easypruner.budgets.Latency(
            keep, runtime=runtime, clock='cpu', repeats=_REPEATS, warmup=_WARMUP
        )
        source = easypruner.sources.L1Norm(budget=budget)
        start = process_time()
        masks = source.select(graph, easypruner.Context(seed=_SEED))
        searching = process_time() - start
        pruned = copy_of(model)
        easypruner.prune(pruned, masks, graph=graph.on(pruned))
        run = loaded(runtime, pruned, image, image.device, _PLACES)
        fresh = measure([anew, run], repeats=repeats, clock='cpu')[1]
        yield (
            _key(network, name, keep),
            {
                'network': network,
                'runtime': name,
                'asked': keep,
                'delivered': fresh.ratio.median,
                'noise': fresh.ratio.noise,
                'seconds': fresh.seconds.median,
                'macs': graph.cost(masks).macs / graph.cost().macs,
                'search': loading + searching,
                'measured': [list(pair) for pair in bench.shares],
            },
        )


if __name__ == '__main__':
    main()
