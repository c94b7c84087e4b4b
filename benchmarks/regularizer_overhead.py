"""Measures the time that each regularizer adds to a training step, and writes docs/regularizers.md.

python benchmarks/regularizer_overhead.py [--quick] [--out FILE] [--results FILE]

Everything runs in one process and one thread. Steps with and without the regularizer alternate, and
the result is their difference. A step is ``optimizer.step()``; for ActivationSparsity, which acts
on forward passes, it is a forward and a backward pass. Seconds are CPU time of the process, so
other processes are not counted. The machine should still be idle, because processes share caches
and memory. The cards in docs/strategies show the results: run ``python docs/cards.py`` afterwards.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

import torch
import torchvision
from coverage_page import machine
from regularizer_page import Measured, on_scales, page, row
from torch import Tensor, nn

import easypruner
from easypruner import Masks, Progress, Regularizer
from easypruner.base.files import write_json
from easypruner.base.versions import versions_of
from easypruner.graph import ChannelGraph
from easypruner.plugins import load_plugins
from easypruner.plugins.registry import REGULARIZERS, build

ROOT = Path(__file__).resolve().parent.parent
STRENGTH = 1e-4
REGULARIZERS_MEASURED = (
    dict(type='GlobalSparsity', strength=STRENGTH),
    dict(type='GlobalSparsity', strength=STRENGTH, norm='l2'),
    dict(type='GlobalSparsity', strength=STRENGTH, norm='smooth_l1'),
    dict(type='MaskSparsity', strength=STRENGTH),
    dict(type='MaskSparsity', strength=STRENGTH, norm='l2'),
    dict(type='MaskSparsity', strength=STRENGTH, norm='smooth_l1'),
    dict(type='MaskSparsity', strength=STRENGTH, apply='proximal'),
    dict(type='GradDecay'),
    dict(type='Polarization', strength=STRENGTH),
    dict(type='HoyerSquare', strength=STRENGTH),
    dict(type='HoyerSquare', strength=STRENGTH, on='weights'),
    dict(type='GReg'),
    dict(type='GReg', over='group'),
    dict(type='GroupLasso', strength=STRENGTH),
    dict(type='GroupLasso', strength=STRENGTH, masked=True),
    dict(type='GroupLasso', strength=STRENGTH, apply='proximal'),
    dict(type='GroupLasso', strength=STRENGTH, over='group'),
    dict(type='GroupLasso', strength=STRENGTH, over='group', alpha=4.0),
)
"""Configs. The time does not depend on the strength."""
LAZY = 32
"""The value of ``regularize_every`` for the regularizers that read all weights."""
SAMPLES = 8
PASS = f'forward and backward pass of {SAMPLES} images of 64 x 64'


def main() -> None:
    """Measure everything, then write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--quick', action='store_true', help='a small model, to try the script')
    parser.add_argument('--pairs', type=int, default=25, help='pairs of steps in a round')
    parser.add_argument('--rounds', type=int, default=5, help='rounds over all regularizers')
    parser.add_argument('--out', type=Path, default=ROOT / 'docs' / 'regularizers.md')
    results = ROOT / 'benchmarks' / 'results' / 'regularizer_overhead.json'
    parser.add_argument('--results', type=Path, default=results)
    args = parser.parse_args()
    torch.set_num_threads(1)
    load_plugins()
    name = 'resnet18' if args.quick else 'resnet50'
    bench = Bench(name)
    pushes: dict[str, Callable[[], None]] = {
        label(config): bench.push(build(REGULARIZERS, config)) for config in REGULARIZERS_MEASURED
    }
    pushes |= {
        'loop, as `GlobalSparsity()`': bench.loop,
        'loop, as `MaskSparsity()`': bench.masked_loop,
    }
    cases = [(key, push, 1) for key, push in pushes.items()]
    cases += [
        (f'{key}, every {LAZY} updates', push, LAZY)
        for key, push in pushes.items()
        if not on_scales(key)
    ]
    found: dict[str, list[Measured]] = {key: [] for key, _, _ in cases}
    pairs, rounds = (3, 1) if args.quick else (args.pairs, args.rounds)
    passes: list[Measured] = []
    for _ in range(rounds):
        for key, push, every in cases:
            found[key].append(bench.measure(push, pairs, every))
            print(key, found[key][-1], flush=True)
        passes.append(bench.measure_passes(pairs))
        print('passes', passes[-1], flush=True)
    content = {
        'network': f'{name} of torchvision with random weights',
        'measured': f'CPU time with one thread, the median of {rounds} rounds of {pairs} pairs',
        'machine': machine(),
        'versions': versions_of('torch', 'torchvision'),
        'date': datetime.now(timezone.utc).date().isoformat(),
        'step': 'optimizer.step() of SGD with momentum',
        'pass': PASS,
        'results': {key.replace('`', ''): row(several) for key, several in found.items()},
        'passes': {'ActivationSparsity()': row(passes)},
    }
    write_json(args.results, content)
    args.out.write_text(page(name, pairs, LAZY, found, passes, PASS), encoding='utf-8')


def label(config: dict[str, object]) -> str:
    """Return the name of a config on the page."""
    options = [f'{k}={v!r}' for k, v in config.items() if k not in ('type', 'strength')]
    return f'`{config["type"]}({", ".join(options)})`'


class Bench:
    """A network of torchvision with random weights and gradients, and masks that remove half of it.

    Args:
        name: the name of the network.
    """

    def __init__(self, name: str) -> None:
        torch.manual_seed(0)
        self.model: nn.Module = torchvision.models.get_model(name, weights=None)
        self.graph: ChannelGraph = easypruner.trace(self.model, torch.zeros(1, 3, 64, 64))
        groups = self.graph.groups.items()
        self.masks = Masks({n: torch.arange(group.size) % 2 == 0 for n, group in groups})
        # The rate is so small that the weights do not change over all steps.
        parameters = list(self.model.parameters())
        self.optimizer = torch.optim.SGD(parameters, lr=1e-9, momentum=0.9, foreach=True)
        for parameter in parameters:
            parameter.grad = 1e-3 * torch.randn_like(parameter)
        keep = self.graph.keep(self.masks)
        self.layers = [
            (module, (~keep.get((f'{path}.weight', 0), torch.ones_like(module.weight).bool())))
            for path, module in self.model.named_modules()
            if isinstance(module, nn.BatchNorm2d)
        ]

    def push(self, regularizer: Regularizer) -> Callable[[], None]:
        """Return a function that does the work of a regularizer before or after each step."""
        progress = Progress(1, 10**9, None, 0.1, self.optimizer)
        push = regularizer.shrink if regularizer.is_proximal else regularizer.add_gradient
        return lambda: push(self.graph, self.masks, progress)

    def loop(self) -> None:
        """Push all scales, in a Python loop over layers."""
        for module in self.model.modules():
            if isinstance(module, nn.BatchNorm2d):
                scale: Tensor = module.weight
                assert scale.grad is not None
                scale.grad.data.add_(STRENGTH * torch.sign(scale.data))

    def masked_loop(self) -> None:
        """Push the removed scales, in a Python loop over layers."""
        for module, removed in self.layers:
            scale: Tensor = module.weight
            assert scale.grad is not None
            scale.grad.data.add_(STRENGTH * torch.sign(scale.data) * removed)

    def measure(self, push: Callable[[], None], pairs: int, every: int = 1) -> Measured:
        """Alternate steps with one push and steps without; return the medians over pairs."""

        def plainly() -> None:
            for _ in range(every):
                self.optimizer.step()

        def pushed() -> None:
            push()
            plainly()

        return alternate(plainly, pushed, pairs, every)

    def measure_passes(self, pairs: int) -> Measured:
        """Alternate forward and backward passes with and without ActivationSparsity."""
        regularizer = build(REGULARIZERS, dict(type='ActivationSparsity', strength=STRENGTH))
        images = torch.randn(SAMPLES, 3, 64, 64)
        progress = Progress(1, 10**9)
        model = copy.deepcopy(self.model).train()
        graph = self.graph.on(model)

        def plainly() -> None:
            model(images).sum().backward()

        def pushed() -> None:
            with regularizer.watching(graph, None):
                regularizer.joined(model(images).sum(), progress).backward()

        return alternate(plainly, pushed, pairs)


def alternate(
    plainly: Callable[[], None], pushed: Callable[[], None], pairs: int, every: int = 1
) -> Measured:
    """Call two functions in turn; return the medians of their difference and of the first.

    Args:
        plainly: runs steps without a regularizer.
        pushed: runs steps with one.
        pairs: the number of pairs of calls.
        every: the number of steps in each call.
    """
    pushed()
    plain, added = [], []
    for _ in range(pairs):
        plain.append(seconds(plainly) / every)
        added.append(seconds(pushed) / every - plain[-1])
    return Measured(1e3 * statistics.median(added), 1e3 * statistics.median(plain))


def seconds(call: Callable[[], object]) -> float:
    """Return the CPU time of a call."""
    start = time.process_time()
    call()
    return time.process_time() - start


if __name__ == '__main__':
    main()
