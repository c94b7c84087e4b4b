"""The section of docs/latency.md on ``Macs(for_speed=)``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from statistics import fmean
from typing import Any

from grid_page import Interval

_TEMPLATE = """## What speed costs in accuracy

The networks above have random weights. `benchmarks/for_speed.py` cuts trained ones: the ResNet and
the images of [What widths on a grid cost](grid.md), by `L1Norm` with
`budget=dict(type='Macs', keep=..., for_speed=...)` on the grid of ONNX Runtime, and fine-tunes each
for {epochs} epochs ({machine}, {versions}). *Difference* is that of the accuracy to `for_speed=0`
of the same seed, with the 95 % interval of its mean (Student's t).

| MACs asked | for_speed | seeds | MACs left | time left | accuracy, % | difference |
|---|---|---|---|---|---|---|
{rows}
"""


def section(content: Mapping[str, Any]) -> str:
    """Return the section for the content of the results."""
    return _TEMPLATE.format(
        epochs=content['epochs'],
        machine=content['machine'],
        versions=', '.join(f'{name} {version}' for name, version in content['versions'].items()),
        rows='\n'.join(_rows(content['runs'])),
    )


def _rows(runs: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    shares = dict.fromkeys(name.split(' | ')[0] for name in runs)
    for share in shares:
        seeds = [run for name, run in runs.items() if name.split(' | ')[0] == share]
        for value in seeds[0]:
            macs, time, accuracy = (
                fmean(run[value][what] for run in seeds) for what in ('macs', 'time', 'accuracy')
            )
            own = [run[value]['accuracy'] - run['0.0']['accuracy'] for run in seeds]
            difference = '' if value == '0.0' else Interval.of(own).text(2)
            yield (
                f'| {share} | {value} | {len(seeds)} | {macs:.3f} | {time:.3f} | {accuracy:.2f} | '
                f'{difference} |'
            )
