"""The page docs/grid.md."""

from __future__ import annotations

import json
import math
import re
import statistics
import textwrap
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scipy import stats

from easypruner.base.files import write_whole

_CODE = re.compile('`[^`]*`')
_NO_BREAK = '\0'

Key = tuple[str, float, int]
"""Source, share of MACs that is kept, grid."""
Found = Mapping[Key, Mapping[int, Mapping[str, Any]]]
"""Source, share and grid -> seed -> the result of the run."""

_TEMPLATE = """# What widths on a grid cost in accuracy

Written by `python benchmarks/grid_accuracy.py page`; the results are those of
`python benchmarks/grid_accuracy.py run`, which took {minutes:.0f} CPU minutes ({machine}, one
thread, torch {torch}).

With `round_to=8` in the limits of a graph, the width of each group is a multiple of 8. Many
runtimes are faster on such widths. A grid does not cost MACs, because the budget is met on it:
other channels are kept instead. This page shows what that costs in accuracy.

## The experiment

A ResNet-{depth} of {width}, {width2} and {width4} channels ({macs}), on `mnist5k_hard`: 4,000
images to train on and 1,000 to test on, distorted and cluttered, at half their resolution. For
each of {seeds} seeds, a network is trained for {epochs} epochs and then cut in one shot, with the
budget `Macs(keep)` on each grid. At least {least} of each group stays. Each cut network is
fine-tuned for {finetune_epochs} epochs, with the same order of images on each grid, and tested
once at the end. {sources} Without a cut, the accuracy is {baseline} %{uncut}.

*Delivered* is the mean share of the MACs that is left. The *difference* is that to widths of any
size (`round_to=1`), of the same seed; after it stands the 95 % interval of its mean (Student's t
over the seeds). One test image is {image:.1f} points.

| source | asked | seeds | `round_to` | delivered | accuracy, % | difference | loss | difference |
|---|---|---|---|---|---|---|---|---|
{rows}

## All cuts together

The differences of a seed are averaged over its cuts ({conditions}); the interval is that of their
mean over the seeds.

| `round_to` | delivered | difference in accuracy, points | difference in test loss |
|---|---|---|---|
{pooled}

{seen}

## What this does not show

The network, the images and the number of seeds are small: an effect below the width of an interval
cannot be seen here. Where fine-tuning makes up for a cut, widths can hardly matter: compare with
the accuracy of the uncut networks. A network that needs all its channels may show more. {chance}

On a grid a little less of the MACs is left, because the next step of the grid would exceed the
budget; this is a part of the differences. Narrow groups have little room on a coarse grid: a group
of 32 channels has two widths on a grid of 16 (16 and 32), and a group of 16 has one.
"""


@dataclass(frozen=True)
class Interval:
    """The mean of differences over seeds, and the half width of its 95 % interval."""

    mean: float
    half: float

    @classmethod
    def of(cls, differences: Sequence[float]) -> Interval:
        """Return the interval of at least one difference; with one it is infinitely wide."""
        count = len(differences)
        if count < 2:
            return cls(differences[0], math.inf)
        error = statistics.stdev(differences) / math.sqrt(count)
        return cls(statistics.fmean(differences), float(stats.t.ppf(0.975, count - 1)) * error)

    @property
    def excludes_zero(self) -> bool:
        """Whether chance alone is an unlikely reason of the differences."""
        return abs(self.mean) > self.half

    def text(self, digits: int) -> str:
        """Return mean and bounds."""
        low, high = self.mean - self.half, self.mean + self.half
        return f'{self.mean:+.{digits}f} ({low:+.{digits}f} to {high:+.{digits}f})'


def write_page(results: Path, out: Path) -> None:
    """Write the page from the results."""
    write_whole(out, page(json.loads(results.read_text(encoding='utf-8'))))


def page(content: Mapping[str, Any]) -> str:
    """Return the page for the content of the results."""
    setting, found = content['setting'], by_condition(content['runs'])
    parts = [*content['runs'].values(), *content['trained'].values()]
    seeds = {seed for runs in found.values() for seed in runs}
    conditions = list(dict.fromkeys((source, keep) for source, keep, _ in found))
    text = _TEMPLATE.format(
        minutes=sum(part['seconds'] for part in parts) / 60,
        machine=content['machine'],
        torch=content['versions']['torch'],
        depth=content['network']['depth'],
        macs=f'{content["network"]["macs"] / 1e6:.1f} M MACs',
        width=setting['width'],
        width2=2 * setting['width'],
        width4=4 * setting['width'],
        least=_percent(1 - setting['max_removed'], 0),
        seeds=len(seeds),
        baseline=_spread(_accuracies(content, 'baseline'), 2),
        uncut=_uncut(_accuracies(content, 'uncut')),
        sources=_sources(found, setting),
        image=100 / content['network']['test_images'],
        rows='\n'.join(_rows(found)),
        conditions=_listed([f'`{source}` at {_percent(keep, 0)}' for source, keep in conditions]),
        pooled='\n'.join(_pooled_rows(found)),
        seen='\n'.join(_seen(found)),
        chance=_chance(found),
        epochs=setting['epochs'],
        finetune_epochs=setting['finetune_epochs'],
    )
    return '\n\n'.join(_wrapped(block) for block in text.split('\n\n'))


def by_condition(runs: Mapping[str, Mapping[str, Any]]) -> Found:
    """Return the runs by condition and seed.

    Seeds for which some grid is missing are left out, and sources and shares with a single seed.
    """
    found: defaultdict[Key, dict[int, Mapping[str, Any]]] = defaultdict(dict)
    for name, result in runs.items():
        source, keep, grid, seed = name.split(' | ')
        found[source, float(keep), int(grid)][int(seed)] = result
    grids = {grid for _, _, grid in found}
    complete = {}
    for (source, keep, grid), runs in found.items():
        all_grids = [found.get((source, keep, other), {}) for other in grids]
        seeds = [seed for seed in runs if all(seed in others for others in all_grids)]
        if len(seeds) > 1:
            complete[source, keep, grid] = {seed: runs[seed] for seed in sorted(seeds)}
    return complete


def differences(found: Found, key: Key, what: str) -> dict[int, float]:
    """Return seed -> difference of a figure to that with widths of any size."""
    source, keep, _ = key
    free = found[source, keep, 1]
    return {seed: run[what] - free[seed][what] for seed, run in found[key].items()}


def pooled(found: Found, grid: int, what: str) -> Interval:
    """Return the interval of a difference on a grid, over all sources and shares."""
    by_seed: defaultdict[int, list[float]] = defaultdict(list)
    for key in found:
        if key[2] == grid:
            for seed, difference in differences(found, key, what).items():
                by_seed[seed].append(difference)
    return Interval.of([statistics.fmean(values) for values in by_seed.values()])


def _wrapped(block: str) -> str:
    """Return a paragraph in lines of equal length; headings, lists and tables stay."""
    if block.startswith(('#', '|', '-')):
        return block
    end = '\n' if block.endswith('\n') else ''
    # A line does not end inside code.
    words = _CODE.sub(lambda code: code[0].replace(' ', _NO_BREAK), ' '.join(block.split()))
    return textwrap.fill(words, 100, break_on_hyphens=False).replace(_NO_BREAK, ' ') + end


def _sources(found: Found, setting: Mapping[str, Any]) -> str:
    """Return which network each source cuts."""
    network = {
        'L1Norm': '`L1Norm` cuts the trained network.',
        'BNScale': f'`BNScale` cuts it after {setting["sparse_epochs"]} more epochs with '
        f'`GlobalSparsity` (a reach of {setting["reach"]:g}).',
    }
    return ' '.join(network[source] for source in dict.fromkeys(source for source, _, _ in found))


def _uncut(accuracies: Sequence[float]) -> str:
    if not accuracies:
        return ''
    return f', and {_spread(accuracies, 2)} % after as many epochs more as the cut networks have'


def _rows(found: Found) -> Iterator[str]:
    for key, runs in found.items():
        source, keep, grid = key
        cells = [f'`{source}`', _percent(keep, 0), str(len(runs)), str(grid)]
        cells.append(_mean_share(runs.values()))
        for what, digits in (('accuracy', 2), ('loss', 3)):
            cells.append(_spread([run[what] for run in runs.values()], digits))
            own = differences(found, key, what)
            cells.append('' if grid == 1 else Interval.of([*own.values()]).text(digits))
        yield f'| {" | ".join(cells)} |'


def _pooled_rows(found: Found) -> Iterator[str]:
    for grid in _grids(found):
        runs = [run for key, by_seed in found.items() if key[2] == grid for run in by_seed.values()]
        macs = f'{pooled(found, grid, "macs").mean * 100:+.1f} points'
        accuracy, loss = (pooled(found, grid, what) for what in ('accuracy', 'loss'))
        delivered = f'{_mean_share(runs)} ({macs})'
        yield f'| {grid} | {delivered} | {accuracy.text(2)} | {loss.text(3)} |'


def _seen(found: Found) -> Iterator[str]:
    for grid in _grids(found):
        interval = pooled(found, grid, 'accuracy')
        low, high = interval.mean - interval.half, interval.mean + interval.half
        if interval.excludes_zero:
            kind = 'lower' if interval.mean < 0 else 'higher'
            yield (
                f'- On multiples of {grid}, the accuracy is {kind} by {abs(interval.mean):.2f} '
                'points; the interval excludes zero.'
            )
        else:
            yield (
                f'- On multiples of {grid}, no difference in accuracy is seen; losses above '
                f'{max(-low, 0):.2f} points and gains above {max(high, 0):.2f} are outside of the '
                'interval.'
            )


def _chance(found: Found) -> str:
    """Return how many intervals exclude zero, and how many would by chance."""
    keys = [key for key in found if key[2] != 1]
    if not keys:
        return ''
    intervals = [Interval.of([*differences(found, key, 'accuracy').values()]) for key in keys]
    count = sum(interval.excludes_zero for interval in intervals)
    exclude = 'excludes' if count == 1 else 'exclude'
    return (
        f'Of the {len(keys)} intervals of the first table, {count} {exclude} zero; '
        f'{0.05 * len(keys):.1f} would by chance, if grids cost nothing.'
    )


def _grids(found: Found) -> list[int]:
    return sorted({grid for _, _, grid in found} - {1})


def _mean_share(runs: Any) -> str:
    return _percent(statistics.fmean(run['macs'] for run in runs), 1)


def _percent(share: float, digits: int) -> str:
    return f'{100 * share:.{digits}f} %'


def _accuracies(content: Mapping[str, Any], name: str) -> list[float]:
    """Return the accuracies of trained networks of one kind, over the seeds."""
    return [found['accuracy'] for n, found in content['trained'].items() if n.startswith(name)]


def _spread(values: Sequence[float], digits: int) -> str:
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f'{statistics.fmean(values):.{digits}f} ± {deviation:.{digits}f}'


def _listed(names: Sequence[str]) -> str:
    *most, last = names
    return f'{", ".join(most)} and {last}' if most else last
