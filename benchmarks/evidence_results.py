"""The results of benchmarks/evidence.py: accuracies by seed, tuned values, and differences."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from easypruner.errors import EasyPrunerError
from easypruner.report.result import RunResult
from easypruner.report.statistics import compare_paired, corrected, resolution

REFERENCE = 'masksparsity'
QUANTITIES = ('calibrated', 'final')


def add(known: dict[str, Any], folder: Path) -> None:
    """Add the finished runs and the tuned values of a study's folder to its results.

    Args:
        known: the results of the study: ``lines``, by method and share of MACs, and ``tuned``.
        folder: the folder of the study, or of a part of it.
    """
    study = json.loads((folder / 'study.json').read_bytes())
    for run in study['runs']:
        try:
            result = RunResult.load(folder / run['work_dir'])
        except EasyPrunerError:
            continue
        keep = run['budget']['keep']
        line = known['lines'].setdefault(
            f'{run["method"]}, {keep:g}', {'method': run['method'], 'keep': keep, 'seeds': {}}
        )
        line['seeds'][str(run['seed'])] = _record(result)
    places = {(each['method'], each['budget']['keep']) for each in known['tuned']}
    known['tuned'] += [
        each for each in study['tuned'] if (each['method'], each['budget']['keep']) not in places
    ]


def _record(result: RunResult) -> dict[str, float]:
    """Return what a run has come to: accuracies in percent, the share of MACs, and seconds."""
    rows = {row.name: row.accuracy for row in result.rows}
    return {
        **rows,
        'final': result.final.accuracy,
        'macs': 100 * result.final.macs / result.whole.macs,
        'seconds': sum(result.seconds.values()),
    }


def chosen(known: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return method -> key of the config -> the value that its first trials have chosen.

    Args:
        known: the results of the study.
    """
    found: dict[str, dict[str, Any]] = {}
    for entry in known['tuned']:
        several = isinstance(entry['key'], list)
        keys = entry['key'] if several else [entry['key']]
        values = entry['value'] if several else [entry['value']]
        found.setdefault(entry['method'], dict(zip(keys, values, strict=True)))
    return found


def differences(lines: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Compare all lines with the reference at the same share of MACs, over the common seeds.

    The verdicts are corrected for all comparisons of one quantity.

    Args:
        lines: the lines of a study's results.
    """
    return [entry for quantity in QUANTITIES for entry in _differences(lines, quantity)]


def _differences(lines: Mapping[str, Any], quantity: str) -> Iterator[dict[str, Any]]:
    values = {name: _by_seed(line, quantity) for name, line in lines.items()}
    pairs = [
        (name, f'{REFERENCE}, {line["keep"]:g}')
        for name, line in lines.items()
        if line['method'] != REFERENCE and values.get(f'{REFERENCE}, {line["keep"]:g}')
    ]
    step = resolution(value for line in values.values() for value in line.values())
    found = [compare_paired(values[name], values[reference], step) for name, reference in pairs]
    for (name, _), paired in zip(pairs, corrected(found), strict=True):
        if paired.seeds:
            yield {
                'line': name, 'quantity': quantity, **dataclasses.asdict(paired),
                'verdict': paired.verdict,
            }  # fmt: skip


def _by_seed(line: Mapping[str, Any], quantity: str) -> dict[int, float]:
    return {int(seed): run[quantity] for seed, run in line['seeds'].items() if quantity in run}
