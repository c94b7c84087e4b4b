"""Writes the page docs/latency.md and its picture from the results of benchmarks/latency.py."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import for_speed_page
import gpu_page
import latency_budget_page
from matplotlib.figure import Figure

from easypruner.runtimes.probe import GRIDS, LAYERS, TOLERANCE, WidthProbe

_RESULTS = Path(__file__).resolve().parent / 'results'
PICTURE = 'images/width_grids.png'
_SHOWN_KINDS = ('dense', 'depthwise')
_LIMIT = 0.55

_TEMPLATE = """# Faster where it runs

Written by `benchmarks/latency.py` on {processor}, with {versions}. One thread, one image of
{side} px, random weights (times do not depend on them). All networks of a table row take turns in
one process, and the time is that of the process's CPU. A short pass is timed after untimed ones of
the same network, in warm caches. A number is the median of the ratios to the unpruned network.

## Widths

Convolutions are computed in blocks of channels. A width between two blocks costs the time of the
next block, or leaves the fast path. The probe times single layers of many widths. *Excess* is the
time of a layer over the time on a smooth line through the widths that are multiples of 32 (of 16
in a group, for grouped convolutions). The grid of a kind of layer is the smallest with which no
width has more than {tolerance:.0%} excess.

{widths}

![The time of layers over a smooth line, by width, for each runtime](images/width_grids.png)

The probe takes some seconds, once for each machine, runtime and number of threads. Its times are
kept in the user's cache. Measure your machine by

```python
import torch, torchvision
import easypruner

images = torch.randn(1, 3, 64, 64)
graph = easypruner.trace(torchvision.models.resnet18(), images, target='TorchEager')
print(graph.target.describe())
```

## Half the MACs

*any width*: `slim(model, image, macs=0.5, limits=dict(round_to=1))`. *on the grid*: the same with
`target=` the runtime, so that grouped convolutions lose whole groups. *for speed*: the same with
`budget=dict(type='Macs', keep=0.5, for_speed=0.15)`, which gives up at most 15 % of the kept scores
for a faster network with the same MACs. The scores of random weights are alike, so that it finds
more room here than in some trained networks. *TP* and *TP 16*:
Torch-Pruning {tp} with the same ratio for all layers, found by bisection, without and with
`round_to=16`; its share of the MACs stands in brackets if it is not 0.50. By MACs alone, 0.50 would
be left.

{halves}

{summary}
"""


def write_page(content: Mapping[str, Any], docs: Path) -> None:
    """Write the page and its picture.

    Args:
        content: the content of the results.
        docs: the folder of the pages.
    """
    picture = docs / PICTURE
    picture.parent.mkdir(parents=True, exist_ok=True)
    draw(content['widths']).savefig(picture, dpi=110)
    versions = dict(content['versions'])
    text = _TEMPLATE.format(
        processor=content['processor'],
        versions=', '.join(f'{name} {version}' for name, version in versions.items()),
        side=content['side'],
        tolerance=TOLERANCE - 1,
        widths='\n'.join(_widths(content['widths'])),
        tp='1.6.1',
        halves='\n\n'.join(_halves(content['networks'])),
        summary=_summary(content['networks']),
    )
    more = [section(known) for section, known in _others()]
    (docs / 'latency.md').write_text('\n'.join([text, *more]), encoding='utf-8')


def _others() -> Iterator[tuple[Callable[[Any], str], Any]]:
    """Yield the sections of other benchmarks, each with its results, if there are any."""
    for name, section in (('for_speed', for_speed_page.section),
                          ('latency_budget', latency_budget_page.section),
                          ('gpu', gpu_page.section)):  # fmt: skip
        file = _RESULTS / f'{name}.json'
        if file.is_file():
            yield section, json.loads(file.read_text(encoding='utf-8'))


def _probe(found: Mapping[str, Any]) -> WidthProbe:
    seconds = found['seconds']
    return WidthProbe({k: {int(w): s for w, s in each.items()} for k, each in seconds.items()}, {})


def _widths(widths: Mapping[str, Any]) -> Iterator[str]:
    yield '| runtime | layer | grid | ' + ' | '.join(f'excess on {g}' for g in GRIDS) + ' |'
    yield '|---' * (3 + len(GRIDS)) + '|'
    for runtime, found in widths.items():
        probe = _probe(found)
        for kind in LAYERS:
            excess = [f'{probe.grid_excess(kind, grid):.2f}' for grid in GRIDS]
            yield f'| {runtime} | {kind} | {probe.grid(kind)} | {" | ".join(excess)} |'


def draw(widths: Mapping[str, Any]) -> Figure:
    """Draw the excess of dense and depthwise convolutions over their width."""
    figure = Figure(figsize=(10, 4), layout='constrained')
    for place, kind in enumerate(_SHOWN_KINDS, 1):
        axes = figure.add_subplot(1, len(_SHOWN_KINDS), place)
        for runtime, found in widths.items():
            probe = _probe(found)
            shown = LAYERS[kind].widths
            axes.plot(shown, [probe.excess(kind, w) for w in shown], marker='.', label=runtime)
        axes.set_title(f'{kind} 3x3')
        axes.set_xlabel('channels')
        axes.axhline(1, color='#333333', lw=0.8)
        axes.grid(color='#DDDDDD')
    figure.axes[0].set_ylabel('time over a smooth line')
    figure.axes[0].legend(frameon=False)
    return figure


def _halves(networks: Mapping[str, Any]) -> Iterator[str]:
    runtimes = {runtime: None for found in networks.values() for runtime in found}
    for runtime in runtimes:
        rows = [
            f'### {runtime}\n',
            '| network | unpruned, ms | any width | on the grid | for speed | TP | TP 16 |',
            '|---|---|---|---|---|---|---|',
        ]
        for name, by_runtime in networks.items():
            if runtime in by_runtime:
                rows.append(_row(name, by_runtime[runtime]))
        yield '\n'.join(rows)


def _row(name: str, found: Mapping[str, Any]) -> str:
    cells = [_cell(found[variant]) for variant in ('any', 'grid', 'speed', 'rival', 'rival16')]
    return f'| {name} | {found["full"]["seconds"] * 1e3:.2f} | {" | ".join(cells)} |'


def _cell(numbers: Mapping[str, float]) -> str:
    macs = '' if abs(numbers['macs'] - 0.5) < 0.005 else f' ({numbers["macs"]:.2f} of the MACs)'
    noise = (numbers['high'] - numbers['low']) / 2
    return f'{numbers["ratio"]:.3f} ± {noise:.3f}{macs}'


def _at_half(numbers: Mapping[str, float]) -> float:
    """Return the share of the time, in proportion to half of the MACs."""
    return numbers['ratio'] * 0.5 / numbers['macs']


def _summary(networks: Mapping[str, Any]) -> str:
    onnx = {n: found['OnnxRuntime'] for n, found in networks.items() if 'OnnxRuntime' in found}
    if not onnx:
        return ''
    reached = [
        f'{_met(onnx, variant)} {where} (at most {_most(onnx, variant)})'
        for variant, where in (('grid', 'on the grid'), ('speed', 'for speed'))
    ]
    text = (
        f'Of {len(onnx)} networks in ONNX Runtime, at most {_LIMIT} of the time is left for '
        f'{" and ".join(reached)}.'
    )
    slower = [
        f'{name} in {runtime}'
        for name, by_runtime in networks.items()
        for runtime, found in by_runtime.items()
        if found['speed']['low'] > min(_at_half(found['rival']), _at_half(found['rival16']))
    ]
    if slower:
        return (
            f'{text} In proportion to half of the MACs, the better of the two by Torch-Pruning is '
            f'faster than that for speed for {", ".join(slower)}.'
        )
    return (
        f"{text} In proportion to half of the MACs, Torch-Pruning's are not faster for any network "
        'in any runtime.'
    )


def _met(onnx: Mapping[str, Any], variant: str) -> int:
    return sum(found[variant]['ratio'] <= _LIMIT for found in onnx.values())


def _most(onnx: Mapping[str, Any], variant: str) -> str:
    worst = max(onnx, key=lambda name: onnx[name][variant]['ratio'])
    return f'{onnx[worst][variant]["ratio"]:.3f}, {worst}'
