"""Measures on a GPU what pruning saves there, what a push costs, and that both are right.

python benchmarks/gpu.py [--device cuda] [--quick] [--out docs/gpu.md]

Takes a few minutes on one GPU; ``--device cpu --quick`` tries the script on single images. Times
are medians over windows of passes that take turns: full network, pruned network. Before any time
is taken, the pruned network is verified against the full one, and the push of a training step
under mixed precision is compared with the formula of its penalty.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torchvision
from easypruner_plugins.mask_sparsity import MaskSparsity
from torch import Tensor, nn

import easypruner
from easypruner import Masks, Progress
from easypruner.base.files import write_whole
from easypruner.graph import ChannelGraph

NETWORKS = ('resnet50', 'mobilenet_v2', 'vit_b_16')
KEEP = 0.5
ROUND_TO = 8
STRENGTH = 1e-2


@dataclass(frozen=True)
class Settings:
    """What is measured, and how long.

    Attributes:
        device: to run on.
        batch: images in a pass.
        side: of the images.
        windows: of which the median is taken.
        passes: in a window.
    """

    device: torch.device
    batch: int
    side: int
    windows: int
    passes: int

    def images(self) -> Tensor:
        """Return random images."""
        generator = torch.Generator().manual_seed(0)
        images = torch.rand(self.batch, 3, self.side, self.side, generator=generator)
        return images.to(self.device)

    def wait(self) -> None:
        """Wait for what the device was given to do."""
        if self.device.type == 'cuda':
            torch.cuda.synchronize(self.device)


def main() -> None:
    """Check, measure, and write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--device', default='cuda')
    parser.add_argument('--quick', action='store_true', help='single images, to try the script')
    parser.add_argument('--out', type=Path, help='the page to write; default: print it')
    options = parser.parse_args()
    device = torch.device(options.device)
    settings = Settings(device, 1, 224, 3, 1) if options.quick else Settings(device, 64, 224, 15, 5)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        lines = list(page(settings))
    text = '\n'.join(lines) + '\n'
    if options.out is None:
        print(text)
    else:
        write_whole(options.out, text)


def page(settings: Settings) -> Iterator[str]:
    """Yield the lines of the page."""
    card = settings.device.type
    if settings.device.type == 'cuda':
        card = torch.cuda.get_device_name(settings.device)
    yield '# On a GPU'
    yield ''
    yield (
        f'Written by `benchmarks/gpu.py` on {datetime.date.today()}, with torch '
        f'{torch.__version__} on {card}: batches of {settings.batch} images of {settings.side} x '
        f'{settings.side}, random weights, L1 norms, half of the MACs, widths in steps of '
        f'{ROUND_TO}. Milliseconds are medians of {settings.windows} windows of '
        f'{settings.passes} passes; the two networks take turns.'
    )
    yield ''
    yield '| network | precision | MACs left | full, ms | pruned, ms | faster by | error |'
    yield '|---|---|---|---|---|---|---|'
    for name in NETWORKS:
        for precision in (torch.float32, torch.float16):
            if precision is torch.float16 and settings.device.type != 'cuda':
                continue
            yield inference_line(name, precision, settings)
    yield ''
    yield '| what a push adds | ms | of the update |'
    yield '|---|---|---|'
    for fused in (False, True):
        if fused and settings.device.type != 'cuda':
            continue
        yield push_line(settings, fused)


def inference_line(name: str, precision: torch.dtype, settings: Settings) -> str:
    """Return the line of a network: verified first, then timed."""
    model = torchvision.models.get_model(name, weights=None).to(settings.device).eval()
    for weight in model.parameters():
        # The head of a ViT starts at zero, and then any two networks have the same outputs.
        if weight.dim() > 1 and not bool(weight.any()):
            torch.nn.init.normal_(weight, std=0.02)
    images = settings.images()
    graph = easypruner.trace(model, images[:1], limits=dict(round_to=ROUND_TO))
    masks = masks_of(graph)
    left = graph.cost(masks).macs / graph.cost().macs
    error = easypruner.verify(model, masks, images[:1], graph=graph).error
    pruned = copy.deepcopy(model)
    easypruner.prune(pruned, masks, graph=graph.on(pruned))
    images = images.to(precision).contiguous(memory_format=torch.channels_last)
    runs = [
        passes(network.to(precision).to(memory_format=torch.channels_last), images)
        for network in (model, pruned)
    ]
    full, cut = timed(runs, settings)
    kind = str(precision).removeprefix('torch.')
    return (
        f'| {name} | {kind} | {left:.1%} | {full * 1e3:.2f} | {cut * 1e3:.2f} '
        f'| {full / cut:.2f} x | {error:.0e} |'
    )


def passes(model: nn.Module, images: Tensor) -> Callable[[], object]:
    """Return a function that runs a network once."""

    @torch.inference_mode()
    def run() -> object:
        return model(images)

    return run


def masks_of(graph: ChannelGraph) -> Masks:
    """Return masks that keep half of the MACs, by the L1 norms of filters."""
    from easypruner.plugins import load_plugins
    from easypruner.plugins.registry import MASK_SOURCES, build

    load_plugins()
    source = build(MASK_SOURCES, dict(type='L1Norm', budget=dict(type='Macs', keep=KEEP)))
    masks: Masks = source.select(graph, easypruner.Context())
    return masks


def timed(runs: list[Callable[[], object]], settings: Settings) -> list[float]:
    """Return the median seconds of each function, which take turns."""
    for run in runs * 3:
        run()
    seconds: list[list[float]] = [[] for _ in runs]
    for _ in range(settings.windows):
        for run, found in zip(runs, seconds, strict=True):
            settings.wait()
            start = time.perf_counter()
            for _ in range(settings.passes):
                run()
            settings.wait()
            found.append((time.perf_counter() - start) / settings.passes)
    return [statistics.median(found) for found in seconds]


def push_line(settings: Settings, fused: bool) -> str:
    """Return what MaskSparsity adds to an update of ResNet-50, once its gradient is checked."""
    model = torchvision.models.resnet50(weights=None).to(settings.device)
    graph = easypruner.trace(model, settings.images()[:1])
    masks = Masks({n: torch.arange(g.size) % 2 == 0 for n, g in graph.groups.items()})
    regularizer = MaskSparsity(STRENGTH)
    check_push(model, graph, masks, settings, fused)
    optimizer = torch.optim.SGD(model.parameters(), 1e-4, momentum=0.9, fused=fused or None)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)

    def update() -> None:
        optimizer.step()

    def pushed() -> None:
        progress = Progress(0, 100, None, 1e-4, optimizer)
        regularizer.add_gradient(graph, masks, progress)
        optimizer.step()

    plain, with_push = timed([update, pushed], settings)
    kind = 'fused' if fused else 'for each'
    return (
        f'| MaskSparsity, SGD ({kind}) on resnet50 | {(with_push - plain) * 1e3:.3f} '
        f'| {(with_push - plain) / plain:.1%} |'
    )


def check_push(
    model: nn.Module, graph: ChannelGraph, masks: Masks, settings: Settings, fused: bool
) -> None:
    """Compare the push under a GradScaler with strength x sign(scale) on what goes.

    Raises:
        AssertionError: it differs.
    """
    twin = copy.deepcopy(model)
    keep = graph.keep(masks)
    scale, scaler = 1024.0, torch.amp.GradScaler(settings.device.type, init_scale=1024.0)
    optimizer = torch.optim.SGD(twin.parameters(), 0.1, fused=fused or None)
    regularizer = MaskSparsity(STRENGTH)
    twin_graph = graph.on(twin)

    def push(optimizer: torch.optim.Optimizer, args: object, kwargs: object) -> None:
        factor = getattr(optimizer, 'grad_scale', None)
        regularizer.add_gradient(twin_graph, masks, Progress(0, 1, factor, 0.1, optimizer))

    optimizer.register_step_pre_hook(push)
    before = {name: tensor.detach().clone() for name, tensor in twin.named_parameters()}
    scaler.scale(sum(p.sum() for p in twin.parameters()) * 0.0).backward()
    scaler.step(optimizer)
    for name, parameter in twin.named_parameters():
        goes = ~keep.get((name, 0), torch.ones(len(parameter)).bool()).to(parameter.device)
        is_scale = graph.operands.get(name) == 'batch_norm.weight'
        pushed = torch.where(goes, 0.1 * STRENGTH * before[name].sign(), 0) if is_scale else 0
        torch.testing.assert_close(parameter.detach(), before[name] - pushed, rtol=0, atol=1e-6)
    assert scaler.get_scale() == scale or not scaler.is_enabled()


if __name__ == '__main__':
    main()
