"""The page docs/rivals.md."""

from __future__ import annotations

import json
import statistics
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from easypruner.base.files import write_whole
from easypruner.report.statistics import compare_paired, corrected, resolution

_TEMPLATE = """# Beside Torch-Pruning

Written by `python benchmarks/rivals.py page`; the results are those of
`python benchmarks/rivals.py run`, which took {time} on one thread ({machine}, {versions}).

The pruners of Torch-Pruning and methods of EasyPruner on the same network, images and epochs:
ResNet-20 of width {width}, {images} images of `mnist5k_hard` to train on and 1,000 to test on,
{epochs} epochs for the baseline. Methods that push train {push_epochs} epochs before the cut and
{finetune_epochs} after it; the others train all {total} after it. The optimizer is SGD with a
momentum of 0.9 and a cosine schedule that begins at {lr:g}. The baseline reaches {baseline} %.

Torch-Pruning is used as its own script for CIFAR does: one global ranking, no weight decay while it
regularizes, small steps until the MACs are met. {tuning}

- *cut*: accuracy right after the cut; *calibrated*: after the statistics of batch norms were
  estimated again; *fine-tuned*: at the end. The mean over seeds, with the standard deviation.
- *CPU time*: of all training and pruning after the baseline; *before the cut*: the part of it until
  the network was cut. *Memory*: how far pruning or fine-tuning raised the memory of the
  process, at the peak.
- *narrowest*: the fewest channels that a layer has in any seed.

Differences are paired by seed, with 95 % intervals of Student's t; the verdict is corrected by
Holm's method for all differences of a table (see [comparing.md](comparing.md)).

{tables}{tuned}
"""
_TUNED = (
    'Each method has the strength and the learning rate of fine-tuning that were best of {trials} '
    'trials on validation images, which the table does not use, at {keep:.0%} of the MACs.'
)
_UNTUNED = (
    "Nothing is tuned: strengths are those of Torch-Pruning's script, scaled to this length of "
    "training, and those of EasyPruner's recipes; fine-tuning begins at a rate of {lr:g}."
)

_COUNTERPARTS = {
    'L1Norm': ('TP magnitude',),
    'GlobalSparsity': ('TP BN scale',),
    'GroupLasso': ('TP group norm',),
    'GReg': ('TP growing reg',),
    'MaskSparsity': ('TP magnitude', 'TP BN scale', 'TP group norm', 'TP growing reg'),
}
"""Method of EasyPruner -> the pruners of Torch-Pruning with which it is compared."""

_COMPARED = {
    'calibrated': 'after the cut, with batch norms calibrated, before any fine-tuning',
    'finetuned': 'at the end',
}
"""Key of an accuracy -> when it is that of the network."""

Runs = Sequence[Mapping[str, Any]]


def write_page(results: Path, out: Path) -> None:
    """Write the page of some results.

    Args:
        results: the file of the results.
        out: the page.
    """
    write_whole(out, page(json.loads(results.read_text(encoding='utf-8'))))


def page(content: Mapping[str, Any]) -> str:
    """Return the page for the content of the results."""
    setting, runs = content['setting'], content['runs']
    shares = sorted({name.split(' | ')[1] for name in runs}, key=float, reverse=True)
    text = _TEMPLATE.format(
        time=_time(content),
        machine=content['machine'],
        versions=', '.join(f'{name} {version}' for name, version in content['versions'].items()),
        baseline=_mean([row['accuracy'] for row in _baselines(content)]),
        total=setting['push_epochs'] + setting['finetune_epochs'],
        tuning=_tuning(content),
        tables='\n\n'.join('\n'.join(_table(share, runs)) for share in shares),
        tuned='\n'.join(_tuned(list(content['trials'].values()))),
        **setting,
    )
    return '\n\n'.join(_wrapped(block) for block in text.split('\n\n'))


def _wrapped(block: str) -> str:
    """Return a paragraph in lines of equal length; headings, lists and tables stay."""
    if block.startswith(('#', '|', '-')):
        return block
    return textwrap.fill(' '.join(block.split()), 100, break_on_hyphens=False)


def _time(content: Mapping[str, Any]) -> str:
    kinds = ('baselines', 'trials', 'runs')
    seconds = sum(row['seconds'] for kind in kinds for row in content[kind].values())
    hours = seconds / 3600
    return f'{hours:.1f} CPU hours' if hours >= 1 else f'{seconds / 60:.0f} CPU minutes'


def _baselines(content: Mapping[str, Any]) -> Runs:
    return [row for row in content['baselines'].values() if row['method'] == 'baseline']


def _tuning(content: Mapping[str, Any]) -> str:
    setting, trials = content['setting'], content['trials']
    if setting['untuned']:
        return _UNTUNED.format(lr=setting['lr'])
    keeps = {float(name.split(' | ')[1]) for name in trials}
    most = max(_trials(content, row['method']) for row in content['runs'].values())
    return _TUNED.format(trials=most, keep=max(keeps))


def _trials(content: Mapping[str, Any], method: str) -> int:
    return sum(row['method'] == method for row in content['trials'].values())


def _table(share: str, runs: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yield the lines of the section of a share of MACs, best methods first."""
    by_seed = _of_share(share, runs)
    found = {method: list(rows.values()) for method, rows in by_seed.items()}
    yield f'## {float(share):.0%} of the MACs'
    yield ''
    yield (
        '| method | seeds | MACs | cut | calibrated | fine-tuned | CPU time | before the cut | '
        'memory | narrowest |'
    )
    yield '|' + ' -- |' * 10
    for method in sorted(found, key=lambda each: -_average(found[each], 'finetuned')):
        rows = found[method]
        cells = [
            _title(method),
            str(len(rows)),
            f'{_average(rows, "macs"):.1%}',
            *(_mean([row[key] for row in rows]) for key in ('cut', 'calibrated', 'finetuned')),
            f'{_average(rows, "seconds"):.0f} s',
            f'{_average(rows, "prune_seconds"):.0f} s',
            f'{_average(rows, "peak") / 2**20:.0f} MiB',
            str(min(row['narrowest'] for row in rows)),
        ]
        yield f'| {" | ".join(cells)} |'
    for key, title in _COMPARED.items():
        yield from _differences(by_seed, key, title)


def _of_share(
    share: str, runs: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[int, Mapping[str, Any]]]:
    """Return method -> seed -> the result of a run with a share of MACs."""
    found: dict[str, dict[int, Mapping[str, Any]]] = {}
    for name, row in runs.items():
        method, own, seed = name.split(' | ')
        if own == share:
            found.setdefault(method, {})[int(seed)] = row
    return found


def _differences(
    runs: Mapping[str, Mapping[int, Mapping[str, Any]]], key: str, title: str
) -> Iterator[str]:
    """Yield the lines of a table of differences between methods of both packages."""
    pairs = [
        (own, other)
        for own, others in _COUNTERPARTS.items()
        for other in others
        if own in runs and other in runs
    ]
    accuracies = {
        method: {seed: row[key] for seed, row in rows.items()} for method, rows in runs.items()
    }
    step = resolution(value for own in accuracies.values() for value in own.values())
    found = [compare_paired(accuracies[own], accuracies[other], step) for own, other in pairs]
    if not found:
        return
    yield from ('', f'Differences of accuracies, {title}:', '')
    yield '| method | compared with | seeds | points | 95 % interval | verdict |'
    yield '|' + ' -- |' * 6
    for (own, other), paired in zip(pairs, corrected(found), strict=True):
        known = paired.low is not None and paired.high is not None
        interval = f'{paired.low:+.1f} to {paired.high:+.1f}' if known else ''
        cells = [_title(own), _title(other), str(len(paired.seeds)), f'{paired.mean:+.1f}']
        yield f'| {" | ".join([*cells, interval, paired.verdict])} |'


def _tuned(trials: Runs) -> Iterator[str]:
    """Yield the lines of the section of what the methods were tuned to."""
    if not trials:
        return
    yield from ('', '', '## Tuned values', '')
    yield (
        'The values that did best in the trials of each method: a multiple of its usual strength, '
        'and the learning rate of fine-tuning. Where one is the largest or the smallest that was '
        'tried, a better one may lie beyond it.'
    )
    yield ''
    yield '| method | strength | learning rate | accuracies of the trials |'
    yield '|' + ' -- |' * 4
    for method in dict.fromkeys(row['method'] for row in trials):
        own = [row for row in trials if row['method'] == method]
        best = max(own, key=lambda row: row['finetuned'])
        reached = [row['finetuned'] for row in own]
        cells = [_title(method), *(_at_end(key, best, own) for key in ('factor', 'lr'))]
        yield f'| {" | ".join(cells)} | {min(reached):.1f} to {max(reached):.1f} |'


def _at_end(key: str, best: Mapping[str, Any], trials: Runs) -> str:
    """Return a value, and whether it is the largest or smallest of those that were tried."""
    tried = sorted({row[key] for row in trials})
    if len(tried) == 1:
        return f'{best[key]:g}'
    ends = {tried[0]: ' (smallest tried)', tried[-1]: ' (largest tried)'}
    return f'{best[key]:g}{ends.get(best[key], "")}'


def _title(method: str) -> str:
    own = method.removeprefix('TP ')
    return f'`{method}`' if own == method else f'Torch-Pruning, {own}'


def _average(rows: Runs, key: str) -> float:
    return statistics.fmean(row[key] for row in rows)


def _mean(values: Sequence[float]) -> str:
    mean = f'{statistics.fmean(values):.1f}'
    return mean if len(values) == 1 else f'{mean} ± {statistics.stdev(values):.1f}'
