"""Disturbs runs in many ways, counts what they end with, and writes docs/reliability.md.

python benchmarks/reliability.py          runs everything (about half an hour), and writes the page
python benchmarks/reliability.py --page   writes the page from the counts of the last time

The runs are the tests in tests/reliability, with all of their cases.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coverage_page import machine
from stage_overhead import read_sentence

from easypruner.base.versions import versions_of

ROOT = Path(__file__).resolve().parent.parent
COUNTS = ROOT / 'benchmarks' / 'results' / 'reliability.json'
PAGE = ROOT / 'docs' / 'reliability.md'

_TEMPLATE = """# Reliability

What survives what, what is refused, and what may change when a run continues.

## What survives

- **A run that dies continues to the same result, bit for bit**: `--resume` after Ctrl-C, SIGTERM,
  SIGKILL, a lost process or a power cut. Each finished stage is kept, a training stage continues
  after its last checkpoint, and a search after its last candidate. Every artifact is written whole
  or not at all, and flushed to the disk before anything names it.
- **SIGTERM**, as sent by Slurm and Kubernetes, ends a run after the current iteration, whose
  checkpoint is saved if `--grace` seconds (20) are enough; otherwise the checkpoint of the last
  epoch counts. With several processes, or a training loop of your own, the run ends after its
  epoch if that is in time.
- **A full or read-only disk, or a vanished directory** is one message with exit code 2. The last
  good state stays.
- **Missing or damaged results** of a finished run (`pruned.pth`, `summary.json`, pictures) are
  written again by `--resume`.

## What is refused

All of these are one message with exit code 2.

- **Damaged files**: weights and training checkpoints are compared with the checksums in them,
  masks and `summary.json` with their hash, and every artifact of a run with the hash in the state
  of its stage. Files are never unpickled.
- **A second run in the same folder**, by the lock `run.lock`: also from another machine on a
  shared file system, where an owner without a sign of life for three minutes counts as ended.
- **torchrun without `--launcher pytorch`**, which would start independent runs in one folder.
- **Numbers that are not numbers**: a training stage stops at a loss, a penalty, a gradient or a
  weight that is NaN or infinite, before anything is saved, and names what made it.
- **Mistakes in a config**, all of them together and before anything is trained. Data loaders,
  hooks and the evaluator run on one batch first.
- **Optimizers** whose state cannot be cut, and sharded networks (FSDP).

## What may change on resume

The number of workers and other settings of how data is loaded, log intervals, the visualizer, the
evaluator, and the hooks that log or save. Everything else is refused: other keys of the config,
another seed, another number of processes, other versions of packages. The message names the key.

## What is random

A run draws all random numbers from its seed: initial weights, the order of the data,
augmentations, dropout, random masks. With the same seed, versions, device and number of threads
and processes, it ends with the same bits. With another number of threads or another device, sums
are rounded differently, and results differ as between seeds; `--resume` says so.
`randomness=dict(seed=None)` chooses a seed, which the run prints and stores.

## Counts

Written by `python benchmarks/reliability.py`, with torch {torch} on {machine}. A run of the whole
method on a tiny network is disturbed again and again. *Changes* are the times at which a run
writes, renames or removes a file.

| disturbance | cases | ended with |
|---|---|---|
{lines}

## Cost

{overhead}
"""

_NAMES = {
    'kills': 'SIGKILL at a change of the folder, then `--resume`',
    'full disk': 'the disk is full from a change on, then there is space again and `--resume`',
    'bit flips in files of stages': 'a flipped bit in a file of a stage, then `--resume`',
    'bit flips in results': 'a flipped bit in a result, which is then read',
    'mutated configs, planned': 'a random mistake in a config, then `--plan`',
    'mutated configs, run': 'a random mistake in a config, then a run of short stages',
}


def main() -> None:
    """Run the tests with all cases, and write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--page', action='store_true', help='only write the page')
    args = parser.parse_args()
    if not args.page:
        COUNTS.unlink(missing_ok=True)
        command = [sys.executable, '-m', 'pytest', '-q', '-m', 'slow or not slow']
        environment = os.environ | {'EASYPRUNER_RELIABILITY': str(COUNTS), 'OMP_NUM_THREADS': '1'}
        subprocess.run([*command, 'tests/reliability'], check=True, cwd=ROOT, env=environment)
        counts = json.loads(COUNTS.read_text(encoding='utf-8'))
        content = {'counts': counts, 'machine': machine(), 'versions': versions_of('torch')}
        COUNTS.write_text(json.dumps(content, indent=2) + '\n', encoding='utf-8')
    content = json.loads(COUNTS.read_text(encoding='utf-8'))
    PAGE.write_text(page(content), encoding='utf-8')


def page(content: Mapping[str, Any]) -> str:
    """Return the page for the counts."""
    return _TEMPLATE.format(
        torch=content['versions']['torch'],
        machine=content['machine'],
        lines='\n'.join(_line(*item) for item in content['counts'].items()),
        overhead=textwrap.fill(read_sentence(), 98),
    )


def _line(name: str, outcomes: Mapping[str, int]) -> str:
    cases = outcomes.get('cases', max(outcomes.values()))
    ends = ', '.join(f'{kind}: {count}' for kind, count in outcomes.items() if kind != 'cases')
    return f'| {_NAMES.get(name, name)} | {cases} | {ends} |'


if __name__ == '__main__':
    main()
