"""Counts of what disturbed runs ended with, and what two runs must have in common."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

from easypruner import Masks
from easypruner.engine.checkpoint import read_weights

COUNTS = 'EASYPRUNER_RELIABILITY'
"""The environment variable with the file for the counts of a long test; it runs all cases then."""


def cases(few: int, all_of_them: int) -> int:
    """Return the number of cases: few in a test, all if they are counted."""
    return all_of_them if os.environ.get(COUNTS) else few


def report(name: str, number: int, outcomes: Counter[str]) -> None:
    """Add the number of cases of a test and their outcomes to the file of counts."""
    if file := os.environ.get(COUNTS):
        path = Path(file)
        content = json.loads(path.read_text(encoding='utf-8')) if path.is_file() else {}
        path.write_text(
            json.dumps(content | {name: {'cases': number, **outcomes}}, indent=2), encoding='utf-8'
        )


def spread(total: int, number: int) -> list[int]:
    """Return numbers from 0 to ``total``, spread evenly, with the first and the last."""
    if number >= total:
        return list(range(total))
    return sorted({round(i * (total - 1) / max(number - 1, 1)) for i in range(number)})


def results(folder: Path, stages: bool = True) -> dict[str, Any]:
    """Return what a run found: hashes of weights, its records, and its summary without times.

    Args:
        folder: the work directory.
        stages: whether the weights of all stages count, or those of the result only.
    """
    files = sorted(folder.glob('*/weights.pth')) if stages else []
    found: dict[str, Any] = {
        str(path.relative_to(folder)): _weights_hash(path)
        for path in [*files, folder / 'pruned.pth']
    }
    for name in ('architecture.json', 'pruned_config.py'):
        found[name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    masks = Masks.load(folder / 'masks.safetensors')
    found['masks'] = {name: mask.tolist() for name, mask in masks.items()}
    summary = json.loads((folder / 'summary.json').read_text(encoding='utf-8'))
    for changing in ('seconds', 'name', 'hash', 'check'):
        summary.pop(changing, None)
    return found | {'summary': summary}


def _weights_hash(path: Path) -> str:
    state = hashlib.sha256()
    for name, tensor in sorted(read_weights(path).items()):
        state.update(name.encode())
        state.update(tensor.contiguous().numpy().tobytes())
    return state.hexdigest()
