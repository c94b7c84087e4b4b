"""What docs/evidence.md needs of a study: accuracies by seed, differences, and tuned values."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from easypruner.errors import EasyPrunerError
from easypruner.report.result import RunResult


def collect(folder: Path) -> dict[str, Any]:
    """Return the results of the finished runs of a study.

    Args:
        folder: the folder of the study.
    """
    study = json.loads((folder / 'study.json').read_bytes())
    lines: dict[str, dict[str, Any]] = {}
    for run in study['runs']:
        try:
            result = RunResult.load(folder / run['work_dir'])
        except EasyPrunerError:
            continue
        budget = run['budget'] or {}
        line = lines.setdefault(
            run['label'],
            {'method': run['method'], 'keep': budget.get('keep'), 'seeds': {}},
        )
        line['seeds'][str(run['seed'])] = _record(result)
    comparison = folder / 'comparison.json'
    content = json.loads(comparison.read_bytes()) if comparison.is_file() else {}
    return {
        'lines': lines,
        'differences': content.get('differences', []),
        'tuned': study['tuned'],
        'planned': len(study['runs']),
    }


def _record(result: RunResult) -> dict[str, float]:
    """Return what a run has come to: accuracies in percent, the share of MACs, and seconds."""
    rows = {row.name: row.accuracy for row in result.rows}
    return {
        **rows,
        'macs': 100 * result.final.macs / result.whole.macs,
        'seconds': sum(result.seconds.values()),
    }
