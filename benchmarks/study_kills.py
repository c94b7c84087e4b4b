"""Runs a study undisturbed, killed three times, and run by run; writes docs/study_kills.md.

python benchmarks/study_kills.py [--epochs 1] [--images 1000] [--out docs/study_kills.md]

It needs the extra ``bench``. The study has 4 methods, 3 seeds and 2 budgets on hard MNIST images;
its schedules are short, because only what is equal, and how long it takes, is looked at. Each way
has an empty store of stages of its own. Seconds are CPU time, so that other work on the machine
has little influence.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coverage_page import machine

from easypruner.base.files import write_json, write_whole
from easypruner.base.versions import versions_of
from easypruner.report.markup import markdown_table
from easypruner.report.text import plural

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / 'benchmarks' / 'results' / 'study_kills.json'
METHODS = ('masksparsity', 'slimming', 'taylor', 'l1')
SEEDS, BUDGETS = (0, 1, 2), (0.3, 0.15)
KILLS = (0.2, 0.45, 0.7)
"""When the study is killed, as shares of the time that it takes undisturbed."""
_TRAININGS = re.compile(r'(\d+) runs with (\d+) trainings, (\d+) of them different')
STUDY = """configs = {{name: f'{{name}}_r20_mnist5k_hard' for name in {methods!r}}}
seeds = {seeds!r}
budgets = {budgets!r}
options = {options!r}
random = scratch = False
"""
_PAGE = """# What a study shares, and what kills change

Written by `benchmarks/study_kills.py` on {machine}, with torch {torch}. The study: {methods} with
ResNet-20 of width 8 on {images} training images of `mnist5k_hard`, {seeds}, {budgets} of
the MACs, {epochs} of the baseline and short schedules after it, so that a good part of the time is
the start of processes; one process, CPU time. The separate runs are calls of `easypruner prune`
with the same configs and seeds, one after the other, that share nothing.

{table}

The study trains {different} times, and separate runs {trainings} times. Killed by SIGKILL
{kills} on the way, and continued by `--resume`, {equal} of {lines} lines of its comparison are the
same as undisturbed, in all accuracies, MACs and parameters; {same} of {runs} separate runs have the
accuracies of the study, in all their stages.
"""


@dataclass(frozen=True)
class Study:
    """A study that is run in a folder with its own store.

    Attributes:
        file: its file.
        folder: where it is run.
        options: more options of the command.
    """

    file: Path
    folder: Path
    options: Sequence[str] = ()

    def start(self) -> subprocess.Popen[str]:
        """Start it, or continue it."""
        command = ['study', str(self.file), '--out', str(self.folder / 'study')]
        command += ['--store', str(self.folder / 'store'), '--threads', '1', *self.options]
        command += ['--resume'] if (self.folder / 'study' / 'study.json').is_file() else []
        return subprocess.Popen(
            [sys.executable, '-m', 'easypruner', *command],
            stdout=subprocess.PIPE,
            text=True,
        )

    def finish(self) -> str:
        """Run it to its end; return what it prints."""
        process = self.start()
        printed, _ = process.communicate()
        if process.returncode:
            raise SystemExit(f'the study failed: {printed}')
        return printed

    def kill_after(self, seconds: float) -> bool:
        """Start it, and kill it with all its processes; return whether it was still running."""
        process = self.start()
        try:
            process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            # The processes of its runs are in sessions of their own, and end some time after it.
            started = descendants(process.pid)
            for each in (process.pid, *started):
                with suppress(ProcessLookupError):
                    os.kill(each, signal.SIGKILL)
            process.communicate()
            return True
        return False

    def lines(self) -> list[dict[str, Any]]:
        """Return the lines of its comparison, without times and paths."""
        content = json.loads((self.folder / 'study' / 'comparison.json').read_bytes())
        return [plain(line) for line in content['lines']]


def descendants(process: int) -> list[int]:
    """Return the processes that a process has started, and those that they have started."""
    found = subprocess.run(['pgrep', '-P', str(process)], stdout=subprocess.PIPE, text=True)
    children = [int(line) for line in found.stdout.split()]
    return [each for child in children for each in (child, *descendants(child))]


def plain(value: Any) -> Any:
    """Return a part of comparison.json without what may differ between runs: seconds and paths."""
    if isinstance(value, dict):
        left_out = ('seconds', 'time', 'work_dir', 'path', 'folder')
        return {
            key: plain(each)
            for key, each in value.items()
            if not any(word in key for word in left_out)
        }
    return [plain(each) for each in value] if isinstance(value, list) else value


def main() -> None:
    """Run the study in all ways, and write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--epochs', type=int, default=1, help='epochs of the baseline')
    parser.add_argument('--images', type=int, default=1000, help='images that are trained on')
    parser.add_argument('--methods', nargs='+', default=METHODS)
    parser.add_argument('--seeds', nargs='+', type=int, default=SEEDS)
    parser.add_argument('--results', type=Path, default=RESULTS)
    parser.add_argument('--out', type=Path, default=ROOT / 'docs' / 'study_kills.md')
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix='easypruner-') as scratch:
        found = _measured(args, Path(scratch))
    write_json(args.results, found)
    write_whole(args.out, page(found))
    print(f'written: {args.results}, {args.out}')


def _measured(args: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    file = scratch / 'four_methods.py'
    given = {'methods': list(args.methods), 'seeds': list(args.seeds), 'budgets': list(BUDGETS)}
    file.write_text(STUDY.format(options=short_options(args), **given))
    whole, killed = Study(file, scratch / 'whole'), Study(file, scratch / 'killed')
    started, before = time.perf_counter(), _used()
    printed = whole.finish()
    once, passed = _used() - before, time.perf_counter() - started
    print(f'undisturbed: {once:.0f} s', flush=True)
    runs, trainings, different = map(int, _TRAININGS.findall(printed)[0])
    times = [(end - start) * passed for start, end in itertools.pairwise((0.0, *KILLS))]
    kills = sum(killed.kill_after(seconds) for seconds in times)
    killed.finish()
    print(f'killed: {kills} times', flush=True)
    before = _used()
    same = _one_by_one(args, scratch / 'alone', whole)
    alone = _used() - before
    print(f'run by run: {alone:.0f} s', flush=True)
    pairs = list(zip(whole.lines(), killed.lines(), strict=True))
    return {
        **given, 'epochs': args.epochs, 'images': args.images, 'kills': kills, 'runs': runs,
        'trainings': trainings, 'different': different, 'lines': len(pairs),
        'equal': sum(a == b for a, b in pairs), 'same': same, 'machine': machine(),
        'versions': versions_of('torch'),
        'seconds': {'study': once, 'alone': alone},
    }  # fmt: skip


def short_options(args: argparse.Namespace) -> dict[str, Any]:
    """Return the options of all runs, whose schedules are short: key of the config -> value."""
    return {
        'train_cfg.max_epochs': args.epochs,
        'train_dataloader.dataset.indices': args.images,
        'stages.report.runtimes': [],
    }


def _used() -> float:
    """Return the CPU seconds of all processes that this one has started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _one_by_one(args: argparse.Namespace, folder: Path, study: Study) -> int:
    """Run each run by itself; return how many have the study's accuracies."""
    content = json.loads((study.folder / 'study' / 'study.json').read_bytes())
    same = 0
    for run in content['runs']:
        options = [f'{key}={value}' for key, value in short_options(args).items()]
        command = ['prune', f'{run["method"]}_r20_mnist5k_hard', '--seed', str(run['seed'])]
        command += ['--work-dir', str(folder / run['id']), '--macs', str(run['budget']['keep'])]
        subprocess.run(
            [sys.executable, '-m', 'easypruner', *command, '--cfg-options', *options],
            check=True,
            stdout=subprocess.DEVNULL,
            env={**os.environ, 'OMP_NUM_THREADS': '1'},
        )
        same += _accuracies(folder / run['id']) == _accuracies(
            study.folder / 'study' / run['work_dir']
        )
    return same


def _accuracies(work_dir: Path) -> list[float | None]:
    rows = json.loads((work_dir / 'summary.json').read_bytes())['rows']
    return [row['accuracy'] for row in rows]


def page(found: dict[str, Any]) -> str:
    """Return the page.

    Args:
        found: the content of benchmarks/results/study_kills.json.
    """
    seconds = found['seconds']
    ways = {'study': ('the study', 'different'), 'alone': ('separate runs', 'trainings')}
    rows = [
        (title, str(found[count]), f'{seconds[way]:.0f}', f'{seconds[way] / seconds["alone"]:.2f}')
        for way, (title, count) in ways.items()
    ]
    columns: Sequence[str] = ('way', 'trainings', 'seconds', 'share of the separate runs')
    return _PAGE.format(
        machine=found['machine'],
        torch=found['versions']['torch'],
        methods=', '.join(found['methods']),
        seeds=plural(len(found['seeds']), 'seed'),
        budgets=' and '.join(f'{keep:.0%}' for keep in found['budgets']),
        images=f'{found["images"]:,}',
        epochs=plural(found['epochs'], 'epoch'),
        kills=plural(found['kills'], 'time'),
        table=markdown_table(columns, rows).rstrip(),
        **{key: found[key] for key in ('different', 'trainings', 'equal', 'lines',
                                       'same', 'runs')},
    )  # fmt: skip


if __name__ == '__main__':
    main()
