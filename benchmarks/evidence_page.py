"""The page docs/evidence.md, from the results of benchmarks/evidence.py."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from evidence_results import REFERENCE, differences

from easypruner.report.markup import markdown_table

NETWORKS = {'r20': 'ResNet-20 of width 8', 'vgg6bn': 'a small VGG'}
_ROWS = {
    'sparse': 'before the cut',
    'pruned': 'right after it',
    'calibrated': 'recalibrated',
    'finetuned': 'fine-tuned',
}
_HEAD = """# The evidence

Written by `benchmarks/evidence.py` from its studies in `benchmarks/studies`, on {machine}, with
torch {torch}.{state}

The data are `mnist5k_hard`: 5,000 MNIST images, distorted and cluttered, of which 4,000 are trained
on and 1,000 are tested on. All methods train for the same number of epochs in all, and share the
baseline of each seed. Each was tuned by four trials, at the share of MACs that the table of tuned
values says, on a fifth of the training data and with the first seed: the strength of its penalty
and the learning rate of fine-tuning, or the latter alone. Accuracies are top-1 in percent, mean ±
standard deviation over the seeds; differences are paired by seed, with 95 % intervals of Student's
t, and the verdict is corrected by Holm's method for all comparisons of an accuracy in a study (see
[comparing.md](comparing.md)). *Minutes* are those of a run with the stages that it shares, beside
other runs.

`scratch` trains new weights in the widths of `l1`, and `scratch_masksparsity` in those of
`masksparsity`, for as many epochs as the others train in all.
"""
_TUNED = """The values of each method that did best in its trials. Where one is the largest or the
smallest that was tried, a better one may lie beyond it: the method may then do better than the
tables above say."""
_QUICK = (
    ' **These are short runs that show that the script works. They say nothing about methods.**'
)


def write_page(results: Mapping[str, Any]) -> str:
    """Return the page.

    Args:
        results: the content of benchmarks/results/evidence.json.
    """
    state = _QUICK if results['quick'] else ''
    torch = results['versions']['torch']
    parts = [_HEAD.format(machine=results['machine'], torch=torch, state=state).rstrip()]
    for name, study in results['studies'].items():
        kind, _, network = name.partition('_')
        if study['lines']:
            title = 'Methods' if kind == 'methods' else 'Parts of MaskSparsity'
            parts.append(f'## {title}: {NETWORKS[network]}')
            parts += _study(study)
    return '\n\n'.join(parts) + '\n'


def _study(study: Mapping[str, Any]) -> Iterator[str]:
    runs = sum(len(line['seeds']) for line in study['lines'].values())
    if runs < study['planned']:
        yield f'{runs} of {study["planned"]} runs have finished.'
    lines, known = study['lines'], differences(study['lines'])
    for keep in dict.fromkeys(line['keep'] for line in lines.values()):
        yield f'### {1 - keep:.0%} of the MACs removed'
        yield _accuracies([line for line in lines.values() if line['keep'] == keep])
        yield from _differences([d for d in known if lines[d['line']]['keep'] == keep], lines)
    if study['tuned']:
        yield '### Tuned values'
        yield _TUNED
        yield _tuned(study['tuned'])


def _accuracies(lines: Sequence[Mapping[str, Any]]) -> str:
    columns = ('method', 'seeds', 'baseline', 'change by the sparsity stage', *_ROWS.values(),
               'MACs left', 'minutes')  # fmt: skip
    rows = []
    for line in lines:
        runs = list(line['seeds'].values())
        lost = [run['sparse'] - run['baseline'] for run in runs if 'sparse' in run]
        rows.append((
            line['method'], str(len(runs)), _stat([run['baseline'] for run in runs]),
            _stat(lost, '+.2f'),
            *(_stat([run[row] for run in runs if row in run]) for row in _ROWS),
            f'{fmean(run["macs"] for run in runs):.1f} %',
            f'{fmean(run["seconds"] for run in runs) / 60:.0f}',
        ))  # fmt: skip
    return markdown_table(columns, rows).rstrip()


def _stat(values: Sequence[float], form: str = '.2f') -> str:
    if not values:
        return ''
    spread = f' ± {stdev(values):.2f}' if len(values) > 1 else ''
    return f'{fmean(values):{form}}{spread}'


def _differences(found: Sequence[Mapping[str, Any]], lines: Mapping[str, Any]) -> Iterator[str]:
    """Yield a table of differences from the reference, and a sentence for each accuracy."""
    titles = {'calibrated': 'recalibrated, before fine-tuning', 'final': 'at the end'}
    for quantity, title in titles.items():
        own = [d for d in found if d['quantity'] == quantity]
        if not own:
            continue
        yield f'Difference from `{REFERENCE}`, {title}: {_verdicts(own, lines)}.'
        rows = [
            (lines[d['line']]['method'], str(len(d['seeds'])), f'{d["mean"]:+.2f}',
             _interval(d), _verdict(d))
            for d in own
        ]  # fmt: skip
        columns = ('method', 'seeds', 'points', '95 % interval', 'verdict')
        yield markdown_table(columns, rows).rstrip()


def _interval(difference: Mapping[str, Any]) -> str:
    low, high = difference['low'], difference['high']
    return '' if low is None or high is None else f'{low:+.2f} to {high:+.2f}'


def _verdict(difference: Mapping[str, Any]) -> str:
    return str(difference['verdict'])


def _verdicts(differences: Sequence[Mapping[str, Any]], lines: Mapping[str, Any]) -> str:
    """Return which methods have which verdict, as a part of a sentence."""
    found: dict[str, list[str]] = {}
    for d in differences:
        found.setdefault(_verdict(d), []).append(f'`{lines[d["line"]]["method"]}`')
    return '; '.join(f'{verdict}: {", ".join(names)}' for verdict, names in found.items())


def _tuned(tuned: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for entry in tuned:
        several = isinstance(entry['key'], list)
        keys = entry['key'] if several else [entry['key']]
        values = entry['value'] if several else [entry['value']]
        tried = zip(*(trial if several else [trial] for trial, _ in entry['trials']), strict=True)
        chosen = ', '.join(
            f'{key} = {value}{_at_end(value, each)}'
            for key, value, each in zip(keys, values, tried, strict=True)
        )
        spread = [accuracy for _, accuracy in entry['trials']]
        keep = (entry['budget'] or {}).get('keep')
        rows.append((entry['method'], '' if keep is None else f'{1 - keep:.0%}', chosen,
                     f'{min(spread):.1f} to {max(spread):.1f}'))  # fmt: skip
    columns = ('method', 'removed', 'chosen', 'accuracies of the trials')
    return markdown_table(columns, rows).rstrip()


def _at_end(value: Any, tried: Sequence[Any]) -> str:
    """Say that a value is at an end of those that were tried: one beyond it may be better."""
    numbers = [_number(each) for each in tried]
    ends = {max(numbers): ' (largest tried)', min(numbers): ' (smallest tried)'}
    return ends.get(_number(value), '')


def _number(value: Any) -> float:
    return float(str(value).removesuffix('%'))
