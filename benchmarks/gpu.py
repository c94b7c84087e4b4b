"""Measures on a GPU what pruning saves there, and checks that cuts and pushes are right there.

python benchmarks/gpu.py [--budget 420] [--only SECTION ...] [--out FILE]
python benchmarks/gpu.py --device cpu --shrunk   tries all sections in seconds

The sections run in order of importance. Each of their jobs is written to the file as soon as it is
finished. A job that would pass the budget is skipped, and the file names it; with --only, the
sections are added to a file that has others of the same card. docs/latency.md takes a section from
the file (benchmarks/gpu_page.py).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import gpu_cuts
import gpu_regularizers
import gpu_speed
import gpu_training
import torch
from gpu_bench import FULL, SHRUNK, Bench, Job, attempt

from easypruner.base.files import write_json
from easypruner.base.versions import versions_of

RESULTS = Path(__file__).resolve().parent / 'results' / 'gpu.json'
SECTIONS: dict[str, Callable[[Bench], Iterable[Job]]] = {
    'cuts': gpu_cuts.jobs,
    'regularizers': gpu_regularizers.jobs,
    'channels_last': gpu_speed.eager_jobs,
    'training': gpu_training.step_jobs,
    'push': gpu_training.push_jobs,
    'stage': gpu_training.stage_jobs,
    'cuda_graph': gpu_speed.graph_jobs,
    'compiled': gpu_speed.compiled_jobs,
    'tensorrt': gpu_speed.tensorrt_jobs,
}
"""Section -> its jobs, in order of importance."""
_SAME = ('card', 'shrunk', 'versions')
"""What sections in one file have in common."""


def main() -> None:
    """Run the sections."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--device', default='cuda')
    parser.add_argument('--shrunk', action='store_true', help='a tiny network, to try the script')
    parser.add_argument('--budget', type=float, default=420, help='seconds for all sections')
    parser.add_argument('--only', nargs='+', choices=SECTIONS, help='sections to run')
    parser.add_argument('--out', type=Path, default=RESULTS)
    args = parser.parse_args()
    device = torch.device(args.device)
    if device.type == 'cuda' and not torch.cuda.is_available():
        raise SystemExit(
            'torch finds no GPU; expected one, or --device cpu --shrunk to try the script'
        )
    # cuDNN tries its kernels for each shape and takes the fastest.
    torch.backends.cudnn.benchmark = True
    bench = Bench(device, SHRUNK if args.shrunk else FULL)
    study = Study(identity(device, args.shrunk), args.out, Clock(args.budget), keep=bool(args.only))
    for name in args.only or SECTIONS:
        study.run(name, SECTIONS[name](bench), hurried=not args.shrunk)
    print(f'{args.out}: {study.clock.elapsed:.0f} s')


def identity(device: torch.device, shrunk: bool) -> dict[str, Any]:
    """Return what the results depend on."""
    is_cuda = device.type == 'cuda'
    return {
        'card': torch.cuda.get_device_name(device) if is_cuda else device.type,
        'memory_gib': torch.cuda.get_device_properties(device).total_memory / 2**30
        if is_cuda
        else None,
        'host': f'{platform.machine()}, {os.cpu_count()} cores',
        'versions': {
            **versions_of('torch', 'torchvision'),
            'cuda': torch.version.cuda if is_cuda else None,
            'cudnn': torch.backends.cudnn.version() if is_cuda else None,
        },
        'date': datetime.now(timezone.utc).date().isoformat(),
        'shrunk': shrunk,
    }


@dataclass
class Clock:
    """The time since the start, and the budget.

    Attributes:
        budget: the seconds after which no job begins that is not expected to end.
        now: the source of seconds.
    """

    budget: float
    now: Callable[[], float] = time.monotonic
    started: float = field(init=False)

    def __post_init__(self) -> None:
        self.started = self.now()

    @property
    def elapsed(self) -> float:
        """The seconds since the start."""
        return self.now() - self.started

    def allows(self, seconds: float) -> bool:
        """Tell whether a job of so many seconds ends within the budget."""
        return self.elapsed + seconds <= self.budget


class Study:
    """Runs jobs within a budget and writes each result to a file.

    Args:
        about: what the results depend on.
        file: the file; it is replaced.
        clock: the budget.
        keep: whether to keep the sections of a file with the same card, versions and size.
    """

    def __init__(self, about: dict[str, Any], file: Path, clock: Clock, keep: bool = False) -> None:
        self.clock, self._file = clock, file
        self._content: dict[str, Any] = {**about, 'sections': {}, 'skipped': {}}
        if keep and file.is_file():
            earlier = json.loads(file.read_text(encoding='utf-8'))
            if all(earlier.get(name) == about[name] for name in _SAME):
                kept = {name: earlier[name] for name in ('sections', 'skipped')}
                self._content = {**about, **kept}

    def run(self, section: str, jobs: Iterable[Job], hurried: bool = True) -> None:
        """Run the jobs of a section.

        Args:
            section: its name.
            jobs: in order of importance.
            hurried: whether jobs are skipped that are not expected to end within the budget. A job
                is expected to take as long as the longest of its section before it.
        """
        results = self._content['sections'][section] = {}
        skipped: list[str] = []
        self._content['skipped'].pop(section, None)
        longest = 0.0
        for job in jobs:
            if hurried and not self.clock.allows(longest or job.seconds):
                skipped.append(job.name)
                self._content['skipped'][section] = skipped
                continue
            start = self.clock.elapsed
            results[job.name] = {**attempt(job.run), 'seconds': self.clock.elapsed - start}
            failed = results[job.name].get('failed', '')
            if not failed and 'unavailable' not in results[job.name]:
                longest = max(longest, self.clock.elapsed - start)
            print(f'{self.clock.elapsed:6.1f} s  {section}: {job.name} {failed}', flush=True)
            self._write()
        if skipped:
            print(f'{self.clock.elapsed:6.1f} s  {section}: skipped {len(skipped)} for the budget')
        self._write()

    def _write(self) -> None:
        write_json(self._file, self._content)


if __name__ == '__main__':
    main()
