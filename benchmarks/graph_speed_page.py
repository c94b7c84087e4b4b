"""Writes the page docs/graph_speed.md from the measurements."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import statistics
from collections.abc import Iterator, Mapping, Sequence

from coverage_page import machine
from graph_speed_measure import Duel, Growth, Memory, Phases

_TEMPLATE = """# How fast the graph is

Written by `benchmarks/graph_speed.py`, with {versions} on {machine}.
One process, one thread, batch 1, 224 px, random weights. Seconds are CPU time of the process, so
other work on the machine has little influence. The best of {repeats} runs counts. A run that takes
more than five seconds is not repeated. The time to build and copy the model, and to
make the image, is not included. Before each run EasyPruner forgets what it knows of the code of
classes, so that each network is new to it.

## From a model to a pruned model

Half of each layer's channels are removed, the smallest L1 norms first. EasyPruner: `trace`,
`L1Norm(Ratio(keep=0.5, scope='layer')).select`, `prune`. Torch-Pruning: `BasePruner` with
`MagnitudeImportance(p=1)`, `pruning_ratio=0.5`, the classifier ignored, and `step()`. The networks
are {networks}. After each run, the pruned model must run.

{once_summary}

{once}

## In {steps} steps

The same half is removed in {steps} equal steps. The norms are computed again in each.
EasyPruner traces once, because `prune` updates the graph. Torch-Pruning: `iterative_steps={steps}`,
and `step()` {steps} times. The networks are those that both can cut in one step. The best of up to
two runs counts.

{stepwise_summary}

{stepwise}

## Over the size of networks

Seconds = c x operations^e, fitted to the logarithms. With an exponent e of 1, time grows linearly.
Operations are those of ATen in one forward pass.

| family | operations | whole cut, ms | exponent | of the trace alone |
|---|---|---|---|---|
{grown}

## Memory

The peak of memory during `trace` and `cost`, less the memory before, relative to the model's
parameters and buffers. The process is fresh and has traced ResNet-18 before, so that imports and
caches do not count. *Python and numpy* is measured by tracemalloc. *Resident* is the memory of the
whole process: VmHWM, which is reset before, less VmRSS before.

| model | its size, MB | Python and numpy, MB | of the model | resident, MB | of the model |
|---|---|---|---|---|---|
{memory}

## Where the milliseconds go

`graph.cost` for new masks, on {new_masks_on}: {new_masks:.3f} ms (median).

Trace, scores, masks, cost and cut by half. The time of a part does not include that of other parts
that it calls. Each line is the best of all runs, so lines need not add up.

{parts}
"""


def page(
    *,
    networks: str,
    repeats: int,
    once: Sequence[Duel],
    stepwise: Sequence[Duel],
    steps: int,
    grown: Mapping[str, Growth],
    memory: Mapping[str, Memory],
    new_masks: float,
    new_masks_on: str,
    parts: Mapping[str, Phases],
) -> str:
    """Return the page with all measurements."""
    return _TEMPLATE.format(
        versions=', '.join(_versions()),
        machine=machine(),
        networks=networks,
        repeats=repeats,
        once_summary=_summary(once),
        once=_duels(once),
        steps=steps,
        stepwise_summary=_summary(stepwise),
        stepwise=_duels(stepwise),
        grown='\n'.join(_grown(family, growth) for family, growth in grown.items()),
        memory='\n'.join(_memory(name, found) for name, found in memory.items()),
        new_masks=1e3 * new_masks,
        new_masks_on=new_masks_on,
        parts=_parts(parts),
    )


def _versions() -> Iterator[str]:
    for name in ('torch', 'torchvision', 'torch-pruning'):
        if importlib.util.find_spec(name.replace('-', '_')) is not None:
            yield f'{name} {importlib.metadata.version(name)}'


def _summary(duels: Sequence[Duel]) -> str:
    both = [duel for duel in duels if duel.theirs is not None]
    if not both:
        return 'Torch-Pruning cannot cut any of these networks.'
    ratios = sorted((duel.ratio, duel.name) for duel in both)
    least, most = ratios[0], ratios[-1]
    median = statistics.median(ratio for ratio, _ in ratios)
    text = (
        f'Both can cut {len(both)} of {len(duels)} networks. On these Torch-Pruning takes '
        f'**{median:.1f} times** as long (median); '
        f'at least {least[0]:.1f} ({least[1]}), at most {most[0]:.1f} ({most[1]}).'
    )
    if len(both) < len(duels):
        text += f'\nOnly EasyPruner can cut {len(duels) - len(both)}; see the table.'
    return text


def _duels(duels: Sequence[Duel]) -> str:
    head = '| network | operations | EasyPruner, ms | Torch-Pruning, ms | ratio |'
    return '\n'.join([head, '|---|---|---|---|---|', *map(_duel, duels)])


def _duel(duel: Duel) -> str:
    theirs = f'fails: `{duel.failure}` |' if duel.theirs is None else (
        f'{1e3 * duel.theirs:.0f} | {duel.ratio:.1f}'
    )  # fmt: skip
    return f'| {duel.name} | {duel.operations} | {1e3 * duel.ours:.1f} | {theirs} |'


def _grown(family: str, growth: Growth) -> str:
    operations = ', '.join(map(str, growth.operations))
    seconds = ', '.join(f'{1e3 * value:.0f}' for value in growth.seconds)
    return (
        f'| {family} | {operations} | {seconds} | {growth.exponent:.2f} '
        f'| {growth.trace_exponent:.2f} |'
    )


def _memory(name: str, found: Memory) -> str:
    cells = [f'{found.model / 1e6:.0f}', *_bytes(found.traced, found.model)]
    cells += ['', ''] if found.resident is None else _bytes(found.resident, found.model)
    return f'| {name} | {" | ".join(cells)} |'


def _bytes(value: int, whole: int) -> list[str]:
    return [f'{value / 1e6:.1f}', f'{100 * value / whole:.0f} %']


def _parts(parts: Mapping[str, Phases]) -> str:
    names = list(parts)
    rows = [f'| ms | {" | ".join(names)} |', '|---' * (len(names) + 1) + '|']
    for part in next(iter(parts.values())):
        values = ' | '.join(f'{1e3 * parts[name][part]:.2f}' for name in names)
        rows.append(f'| {part} | {values} |')
    return '\n'.join(rows)
