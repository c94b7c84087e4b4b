"""Measures pruned networks in runtimes: the time that is left of half the MACs, and fast widths.

python benchmarks/latency.py [--only PATTERN] [--runtimes NAME ...] [--side 224] [--again]

Writes benchmarks/results/latency.json after each network, then docs/latency.md and its picture.
What the file already has is not measured again. All variants of a network run alternately in one
process, with one thread and a batch of one image, so ratios hold on a machine that is not idle.
"""

from __future__ import annotations

import argparse
import json
import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torchvision
from latency_page import write_page
from latency_rival import half_by_torch_pruning
from torch import Tensor, nn

from easypruner import slim, trace
from easypruner.base.cache import processor
from easypruner.base.files import write_json
from easypruner.plugins.registry import RUNTIMES
from easypruner.plugins.use import ensure_loaded
from easypruner.runtimes import Runtime
from easypruner.runtimes.passes import loaded
from easypruner.runtimes.probe import LAYERS
from easypruner.runtimes.timing import Timed, measure

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / 'benchmarks' / 'results' / 'latency.json'
NETWORKS = (
    'resnet18',
    'resnet50',
    'mobilenet_v2',
    'efficientnet_b0',
    'regnet_y_400mf',
    'convnext_tiny',
    'mobilenet_v3_large',
)
DEFAULT_RUNTIMES = ('OnnxRuntime', 'OpenVINO', 'TorchChannelsLast', 'TorchEager')
FOR_SPEED = 0.15
_KEEP = 0.5
_SEED = 0


def main() -> None:
    """Measure what is missing, then write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--only', default='', help='a regular expression for the networks')
    parser.add_argument('--runtimes', nargs='+', default=DEFAULT_RUNTIMES, metavar='NAME')
    parser.add_argument('--side', type=int, default=224, help='pixels of a side of the image')
    parser.add_argument('--repeats', type=int, default=32, help='rounds that count')
    parser.add_argument('--again', action='store_true', help='measure everything again')
    parser.add_argument('--results', type=Path, default=RESULTS)
    parser.add_argument('--docs', type=Path, default=ROOT / 'docs')
    args = parser.parse_args()
    warnings.filterwarnings('ignore')
    torch.set_num_threads(1)
    ensure_loaded()
    runtimes = [RUNTIMES.classes[name]() for name in args.runtimes]
    known = json.loads(args.results.read_text()) if args.results.is_file() else {}
    content = {'networks': {}, 'widths': {}, **({} if args.again else known)}
    content |= {
        'processor': processor(),
        'side': args.side,
        'versions': {name: version for r in runtimes for name, version in r.versions().items()},
    }
    for runtime in runtimes:
        if runtime.name not in content['widths']:
            content['widths'][runtime.name] = _widths(runtime)
    for name in filter(re.compile(args.only).search, NETWORKS):
        found = content['networks'].setdefault(name, {})
        for runtime in runtimes:
            if runtime.name not in found:
                found[runtime.name] = _measured(name, runtime, args.side, args.repeats)
                write_json(args.results, content)
                print(name, runtime.name, _short(found[runtime.name]), flush=True)
    write_json(args.results, content)
    write_page(content, args.docs)


def _widths(runtime: Runtime) -> dict[str, Any]:
    """Return the times and grids that the probe finds."""
    probe = runtime.probe
    if probe is None:
        raise SystemExit(f'{runtime.name} is not installed')
    return {
        'seconds': {k: {str(w): s for w, s in each.items()} for k, each in probe.seconds.items()},
        'grid': {kind: probe.grid(kind) for kind in LAYERS},
    }


def _measured(name: str, runtime: Runtime, side: int, repeats: int) -> dict[str, Any]:
    """Return the times of all variants of a network in a runtime, with their MACs."""
    image = torch.randn(1, 3, side, side)
    variants = dict(_variants(name, runtime, image))
    passes = [loaded(runtime, each, image, image.device) for each in variants.values()]
    times = measure(passes, threads=1, repeats=repeats, clock='cpu')
    macs = {each: trace(network, image).cost().macs for each, network in variants.items()}
    return {
        each: {**_numbers(timed), 'macs': macs[each] / macs['full']}
        for each, timed in zip(variants, times, strict=True)
    }


def _variants(name: str, runtime: Runtime, image: Tensor) -> Iterator[tuple[str, nn.Module]]:
    """Yield name -> network: the full one, halves by EasyPruner, and by Torch-Pruning."""
    full = build(name)
    yield 'full', full
    options: dict[str, Any] = dict(macs=_KEEP, verify=False)
    yield 'any', slim(full, image, limits={'round_to': 1}, **options).model
    yield 'grid', _without_times(full, image, runtime, options)
    yield 'speed', _without_times(full, image, runtime, dict(budget=_fast(runtime), verify=False))
    yield 'rival', half_by_torch_pruning(full, image, None)
    yield 'rival16', half_by_torch_pruning(full, image, 16)


def _fast(runtime: Runtime) -> dict[str, Any]:
    return dict(type='Macs', keep=_KEEP, for_speed=FOR_SPEED, runtime=runtime)


def _without_times(
    full: nn.Module, image: Tensor, runtime: Runtime, options: dict[str, Any]
) -> nn.Module:
    """Return what ``slim(target=)`` returns, without the times that it measures."""
    limits = trace(full, image, target=runtime).limits
    return slim(full, image, limits=limits, grouped='whole', **options).model


def build(name: str) -> nn.Module:
    """Return a network of torchvision with random weights, in evaluation mode."""
    torch.manual_seed(_SEED)
    return torchvision.models.get_model(name, weights=None).eval()


def _numbers(timed: Timed) -> dict[str, float]:
    low, high = timed.interval
    return {
        'seconds': timed.seconds.median,
        'ratio': timed.ratio.median,
        'low': low,
        'high': high,
    }


def _short(found: dict[str, Any]) -> Sequence[str]:
    return [f'{each} {numbers["ratio"]:.3f}' for each, numbers in found.items()]


if __name__ == '__main__':
    main()
