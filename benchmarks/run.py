"""Runs the benchmarks that make the figures and tables of docs, one after the other.

python benchmarks/run.py --all              all of them, which takes days on a small machine
python benchmarks/run.py --only push grid   some of them
python benchmarks/run.py --quick            short forms of them, in about ten minutes

It needs the extras of each benchmark; benchmarks/NAME.py says more. A benchmark that has finished
is not repeated, unless ``--again`` is given, and most continue where they stopped. One that fails
does not stop the others. ``--quick`` changes no file of the checkout.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from easypruner.base.cache import cache_folder
from easypruner.base.files import make_folder, write_json
from easypruner.report.text import format_duration

ROOT = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Job:
    """A benchmark.

    Attributes:
        name: its name.
        commands: the script and its arguments, for each command.
        quick: the commands of its short form, in which ``{out}`` is a folder for its files; empty
            if it has none.
    """

    name: str
    commands: tuple[str, ...]
    quick: tuple[str, ...] = ()


_PUSH = ('optimizers', 'strength', 'recipes', 'transformer', 'regularizers', 'page')
JOBS = (
    Job(
        'graph_speed',
        ('graph_speed.py',),
        ('graph_speed.py --quick --only squeezenet1_1 --out {out}/graph_speed.md',),
    ),
    Job(
        'regularizers',
        ('regularizer_overhead.py',),
        (
            (
                'regularizer_overhead.py --quick --pairs 3 --rounds 1 --out {out}/regularizers.md '
                '--results {out}/regularizers.json'
            ),
        ),
    ),
    Job(
        'strategies',
        ('strategy_cost.py', 'stage_overhead.py', '../docs/cards.py'),
        ('strategy_cost.py --only L1Norm --calls 1 --out {out}/strategies.json',
         'stage_overhead.py --pairs 2 --epochs 1 --out {out}/stages.json'),
    ),
    Job(
        'quantized',
        ('quantized.py',),
        (
            (
                'quantized.py --quick --parts widths --out {out}/quantized.md '
                '--results {out}/quantized.json'
            ),
        ),
    ),
    Job('digits', ('digits.py', '../docs/metafiles.py')),
    Job(
        'coverage',
        ('random_networks.py --seeds 2000', 'coverage.py', 'operations.py'),
        (('coverage.py --source torchvision --only squeezenet1_1$ --out {out}/coverage.md '
         '--resume {out}/coverage.jsonl'),
         ('operations.py --source torchvision --only squeezenet1_1$ --out {out}/operations.md '
         '--resume {out}/operations.jsonl')),
    ),
    Job('exports', ('exports.py',)),
    Job('latency', ('latency_budget.py', 'for_speed.py', 'latency.py')),
    Job(
        'grid',
        ('grid_accuracy.py run', 'grid_accuracy.py page'),
        ('grid_accuracy.py run --shrunk --seeds 0 --work-dir {out} --results {out}/grid.json',),
    ),
    Job('push', tuple(f'push.py {part}' for part in _PUSH)),
    Job('reliability', ('reliability.py',)),
    Job(
        'pitch',
        ('pitch.py',),
        ('pitch.py --quick --out {out}/pitch.md --results {out}/pitch.json',),
    ),
    Job(
        'rivals',
        ('rivals.py tune', 'rivals.py run', 'rivals.py page'),
        (('rivals.py run --quick --shrunk --untuned --seeds 0 --keeps 0.3 --methods L1Norm '
         '--work-dir {out}/rivals --results {out}/rivals.json'),),
    ),
    Job(
        'study_kills',
        ('study_kills.py',),
        (('study_kills.py --images 200 --methods l1 masksparsity --seeds 0 --out {out}/kills.md '
         '--results {out}/kills.json'),),
    ),
    Job(
        'study_executors',
        ('study_executors.py',),
        (('study_executors.py --executors local --images 200 --out {out}/executors.md '
         '--results {out}/executors.json'),),
    ),
    Job(
        'evidence',
        ('evidence.py',),
        (('evidence.py --quick --studies methods_vgg6bn --only masksparsity l1 --seeds 0 '
         '--work-dir {out}/evidence --store {out}/store'),),
    ),
)  # fmt: skip
"""All benchmarks; those that take the least time come first."""


def main() -> None:
    """Run benchmarks; exit with 1 if some have failed."""
    names = [job.name for job in JOBS]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    chosen = parser.add_mutually_exclusive_group(required=True)
    chosen.add_argument('--all', action='store_true', help='all benchmarks')
    chosen.add_argument('--only', nargs='+', choices=names, default=[], metavar='NAME',
                        help=f'these benchmarks: {", ".join(names)}')  # fmt: skip
    chosen.add_argument('--quick', action='store_true', help='short forms of all benchmarks')
    parser.add_argument('--again', action='store_true', help='repeat those that have finished')
    args = parser.parse_args()
    jobs = [job for job in JOBS if not args.only or job.name in args.only]
    if args.quick:
        with tempfile.TemporaryDirectory() as folder:
            left_out = [job.name for job in jobs if not job.quick]
            print(f'without a short form: {", ".join(left_out)}')
            failed = run_all([job for job in jobs if job.quick], None, Path(folder))
    else:
        failed = run_all(jobs, cache_folder() / 'benchmarks.json', None, again=args.again)
    if failed:
        sys.exit(f'failed: {", ".join(failed)}; the same command runs them again')


def run_all(
    jobs: Sequence[Job], record: Path | None, quick: Path | None, again: bool = False
) -> list[str]:
    """Run benchmarks, and return the names of those that have failed.

    Args:
        jobs: the benchmarks.
        record: the file of the names of finished commands; None repeats all.
        quick: the folder for the files of short forms; None runs whole benchmarks.
        again: whether to repeat finished commands.
    """
    done = [] if record is None or again or not record.is_file() else _read(record)
    failed, begin = [], time.monotonic()
    for number, job in enumerate(jobs, 1):
        for command in job.commands if quick is None else job.quick:
            label = f'[{number}/{len(jobs)}] {job.name}: {command}'
            if command in done:
                print(f'{label}: finished before', flush=True)
                continue
            spent = format_duration(time.monotonic() - begin)
            print(f'{label} (after {spent})', flush=True)
            if not _run(command, quick):
                failed.append(job.name)
                # What follows uses its results.
                break
            done.append(command)
            if record is not None:
                make_folder(record.parent)
                write_json(record, {'finished': done})
    return failed


def _read(record: Path) -> list[str]:
    return list(json.loads(record.read_bytes())['finished'])


def _run(command: str, quick: Path | None) -> bool:
    """Run a command; return whether it has succeeded."""
    script, *arguments = command.split()
    if quick is not None:
        arguments = [argument.format(out=quick) for argument in arguments]
    return subprocess.run([sys.executable, str(ROOT / script), *arguments]).returncode == 0


if __name__ == '__main__':
    main()
