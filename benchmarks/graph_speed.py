"""Measures the time of tracing, costs and cuts, and compares it with Torch-Pruning.

python benchmarks/graph_speed.py [--quick] [--only PATTERN]

Writes docs/graph_speed.md. Everything runs in one process and one thread, with a batch of one image
of 224 px. Seconds are CPU time of the process, so other processes are not counted. The machine
should still be idle, because processes share caches and clock rates.
"""

from __future__ import annotations

import argparse
import re
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
import torchvision
from graph_speed_measure import (
    Duel,
    Growth,
    Phases,
    cost_of_new_masks,
    duel,
    growth,
    peak_memory,
    phases,
    warm_up,
)
from graph_speed_page import page
from torch import nn
from torchvision.models import VisionTransformer

ROOT = Path(__file__).resolve().parent.parent
_MOST_PARAMS = 60_000_000
_QUICK = ('resnet18', 'squeezenet1_1')
_STEPS = 10

FAMILIES = {
    'ResNet-18 to 152': ('resnet18', 'resnet34', 'resnet50', 'resnet101', 'resnet152'),
    'DenseNet-121 to 201': ('densenet121', 'densenet169', 'densenet201'),
    'ViT, 4 to 32 layers': ('vit4', 'vit8', 'vit16', 'vit32'),
}
_QUICK_FAMILIES: dict[str, tuple[str, ...]] = {'ResNet-18 and 34': ('resnet18', 'resnet34')}


def main() -> None:
    """Measure everything, then write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--quick', action='store_true', help='two small models, to try the script')
    parser.add_argument('--only', default='', help='a regular expression for the compared models')
    parser.add_argument('--repeats', type=int, default=5, help='runs, of which the best counts')
    parser.add_argument('--limit', type=float, default=120, help='seconds for one run of either')
    parser.add_argument('--out', type=Path, default=ROOT / 'docs' / 'graph_speed.md')
    args = parser.parse_args()
    warnings.filterwarnings('ignore')
    torch.set_num_threads(1)
    repeats = 1 if args.quick else args.repeats
    names = [name for name in _names(args.quick) if re.search(args.only, name)]
    looked_into = names if args.quick else ['resnet50', 'densenet201']
    warm_up(build('squeezenet1_1'))
    once = _duels(names, 1, repeats, args.limit)
    # A network that fails in one step also fails in ten.
    both = [found.name for found in once if found.theirs is not None] or names[:1]
    networks = "all of torchvision's for classification of up to 60 million parameters"
    if args.quick or args.only:
        networks = f"some of torchvision's: {', '.join(names)}"
    text = page(
        networks=networks,
        repeats=repeats,
        once=once,
        stepwise=_duels(both, _STEPS, min(repeats, 2), args.limit),
        steps=_STEPS,
        grown=_growths(_QUICK_FAMILIES if args.quick else FAMILIES, repeats),
        memory={name: peak_memory(build(name), build('resnet18')) for name in looked_into},
        new_masks=cost_of_new_masks(build(looked_into[0])),
        new_masks_on=looked_into[0],
        parts={name: _best_phases(name, repeats) for name in looked_into},
    )
    args.out.write_text(text, encoding='utf-8')


def build(name: str) -> nn.Module:
    """Return a network of torchvision with random weights; ``'vit8'`` is a ViT of 8 layers."""
    torch.manual_seed(0)
    if layers := re.fullmatch(r'vit(\d+)', name):
        return VisionTransformer(224, 16, int(layers[1]), 6, 384, 1536).eval()
    extra = {'init_weights': False} if name in ('inception_v3', 'googlenet') else {}
    return torchvision.models.get_model(name, weights=None, **extra).eval()


def _names(quick: bool) -> list[str]:
    """Return the names of torchvision's classification networks with up to 60 M parameters."""
    if quick:
        return list(_QUICK)
    models = torchvision.models
    weights = {n: models.get_model_weights(n).DEFAULT for n in models.list_models(module=models)}
    return [n for n, w in weights.items() if w.meta['num_params'] <= _MOST_PARAMS]


def _duels(names: Sequence[str], steps: int, repeats: int, limit: float) -> list[Duel]:
    results = []
    for name in names:
        results.append(duel(name, build(name), steps, repeats, limit))
        print(results[-1], flush=True)
    return results


def _growths(families: dict[str, tuple[str, ...]], repeats: int) -> dict[str, Growth]:
    return {
        family: growth([build(name) for name in names], repeats)
        for family, names in families.items()
    }


def _best_phases(name: str, repeats: int) -> Phases:
    model = build(name)
    runs = [phases(model) for _ in range(repeats)]
    return {part: min(run[part] for run in runs) for part in runs[0]}


if __name__ == '__main__':
    main()
