"""Made-up runs for the report's tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from easypruner.report.result import BudgetResult, Row, RunResult, ScaleStats


def make_result(work_dir: Path, **changes: Any) -> RunResult:
    """Return a plausible finished run in ``work_dir``, with some fields changed."""
    fields: dict[str, Any] = {
        'name': 'method',
        'work_dir': work_dir,
        'rows': make_rows(),
        'budget': BudgetResult('Macs', 0.5, 0.4977),
        'seed': 0,
        'config_hash': 'c0ffee',
        'versions': {'torch': '2.14.1'},
        'seconds': {'train': 40.2, 'prune': 0.5},
        'scales': ScaleStats(300, 1e-6, 3e-5, 1e-2),
        'warnings': ('the reach is short',),
        'parts': {'data': 'aaaa', 'schedule': 'bbbb'},
    }
    return RunResult(**{**fields, **changes})


def make_rows(
    baseline: float = 98.0, final: float = 97.5, macs: int = 20_400_000
) -> tuple[Row, ...]:
    """Return the rows of a run that takes a network of 40.8 M multiply-adds to ``macs``."""
    return (
        Row('baseline', baseline, 40_800_000, 272_474, 1_127_000),
        Row('sparse', baseline - 1, 40_800_000, 272_474, 1_127_000),
        Row('pruned', final - 20, macs, 132_474, 567_000),
        Row('finetuned', final, macs, 132_474, 567_000),
    )


def save_run(folder: Path, location: str, **changes: Any) -> Path:
    """Write a run's summary into ``folder / location``, its name by default; return the path."""
    fields = {'name': location, 'config_hash': location, **changes}
    return make_result(folder / location, **fields).save().parent


def save_seeds(folder: Path, name: str, finals: list[float], **changes: object) -> list[Path]:
    """Save one run for each of ``finals``, with seeds from 0 and the config hash ``name``."""
    return [
        save_run(
            folder,
            f'{name}_{seed}',
            name=name,
            config_hash=name,
            seed=seed,
            rows=make_rows(final=final),
            **changes,
        )
        for seed, final in enumerate(finals)
    ]
