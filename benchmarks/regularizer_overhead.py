"""Measures the time that each regularizer adds to a training step, and writes docs/regularizers.md.

python benchmarks/regularizer_overhead.py [--quick] [--out FILE]

Everything runs in one process and one thread. Steps with and without the regularizer alternate, and
the result is their difference. Seconds are CPU time of the process, so other processes are not
counted. The machine should still be idle, because processes share caches and memory.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torchvision
from regularizer_page import Measured, on_scales, page
from torch import Tensor, nn

import easypruner
from easypruner import Masks, Progress, Regularizer
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
    dict(type='GradDecay'),
    dict(type='Polarization', strength=STRENGTH),
    dict(type='HoyerSquare', strength=STRENGTH),
    dict(type='HoyerSquare', strength=STRENGTH, on='weights'),
    dict(type='GReg'),
    dict(type='GReg', over='group'),
    dict(type='GroupLasso', strength=STRENGTH),
    dict(type='GroupLasso', strength=STRENGTH, masked=True),
    dict(type='GroupLasso', strength=STRENGTH, over='group'),
    dict(type='GroupLasso', strength=STRENGTH, over='group', alpha=4.0),
)
"""Configs; strengths are of no account to the time."""
LAZY = 32
"""Updates from one push to the next, ``regularize_every``, of those that read all weights."""


def main() -> None:
    """Measure everything, then write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--quick', action='store_true', help='a small model, to try the script')
    parser.add_argument('--pairs', type=int, default=25, help='pairs of steps in a round')
    parser.add_argument('--rounds', type=int, default=5, help='rounds over all regularizers')
    parser.add_argument('--out', type=Path, default=ROOT / 'docs' / 'regularizers.md')
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
    for _ in range(rounds):
        for key, push, every in cases:
            found[key].append(bench.measure(push, pairs, every))
            print(key, found[key][-1], flush=True)
    args.out.write_text(page(name, pairs, LAZY, found), encoding='utf-8')


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
        """Return a function that does the work of a regularizer before each step."""
        progress = Progress(1, 10**9, None, 0.1, self.optimizer)
        return lambda: regularizer.add_gradient(self.graph, self.masks, progress)

    def loop(self) -> None:
        """Push all scales, in a Python loop over layers."""
        for module in self.model.modules():
            if isinstance(module, nn.BatchNorm2d):
                scale: Tensor = module.weight
                assert scale.grad is not None
                scale.grad.data.add_(STRENGTH * torch.sign(scale.data))

    def masked_loop(self) -> None:
        """Push the removed scales, in a Python loop over layers."""
        for module, goes in self.layers:
            scale: Tensor = module.weight
            assert scale.grad is not None
            scale.grad.data.add_(STRENGTH * torch.sign(scale.data) * goes)

    def measure(self, push: Callable[[], None], pairs: int, every: int = 1) -> Measured:
        """Alternate steps with one push and steps without; return the medians over pairs."""

        def plainly() -> None:
            for _ in range(every):
                self.optimizer.step()

        def pushed() -> None:
            push()
            plainly()

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
