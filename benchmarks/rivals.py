"""Compares Torch-Pruning and EasyPruner on one network, and writes docs/rivals.md.

python benchmarks/rivals.py tune    finds the rate and strength of each method, on validation images
python benchmarks/rivals.py run     trains, cuts and fine-tunes with these
python benchmarks/rivals.py page    writes docs/rivals.md from the results

It needs the extra ``bench``. All methods start from the same networks and have the same number of
epochs. Each run is a process of its own, so that its peak memory is its own. Results are stored
after each run. A run that is there is not repeated, so the script can be stopped at any time and
started again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from typing import Any

from coverage_page import machine
from rivals_job import METHODS, QUICK, SHRUNK, Job, Setting

from easypruner.base.files import write_json
from easypruner.base.versions import versions_of

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / 'benchmarks' / 'results' / 'rivals.json'
KEEPS = (0.5, 0.3, 0.15, 0.08)
SEEDS = (0, 1, 2, 3, 4)
TUNING_KEEP = 0.15
TRIALS = {
    True: [dict(factor=factor, lr=lr) for factor in (0.5, 2.0) for lr in (0.1, 0.02)],
    False: [dict(factor=1.0, lr=lr) for lr in (0.2, 0.1, 0.05, 0.02)],
}
"""Whether a method has a strength -> its trials; each method has the same number."""


def main() -> None:
    """Run what is missing, or write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('part', choices=['tune', 'run', 'page'])
    parser.add_argument('--seeds', type=int, nargs='+', default=SEEDS)
    parser.add_argument('--keeps', type=float, nargs='+', default=KEEPS)
    parser.add_argument('--methods', nargs='+', choices=METHODS, default=list(METHODS))
    parser.add_argument(
        '--untuned', action='store_true', help='strengths of the scripts and recipes'
    )
    parser.add_argument('--quick', action='store_true', help='few epochs')
    parser.add_argument('--shrunk', action='store_true', help='few images, to try the script')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/rivals'))
    parser.add_argument('--results', type=Path, default=RESULTS)
    parser.add_argument('--out', type=Path, default=ROOT / 'docs' / 'rivals.md')
    args = parser.parse_args()
    if args.part == 'page':
        from rivals_page import write_page

        write_page(args.results, args.out)
        return
    setting = SHRUNK if args.shrunk else QUICK if args.quick else Setting()
    study = Study(setting, args.work_dir, args.results, args.untuned)
    if args.part == 'tune':
        study.tune(args.methods, TUNING_KEEP)
        return
    # Seeds vary last: a study that is stopped has all methods of the first seeds.
    for seed, keep, method in product(args.seeds, args.keeps, args.methods):
        study.run(Job(method, seed, keep))


class Study:
    """The runs of a setting, with their results in a file.

    Args:
        setting: what is the same in all runs.
        folder: for the weights of trained networks.
        file: the results, which may have those of an earlier start.
        untuned: whether strengths are those of the scripts and recipes.

    Raises:
        SystemExit: the results in the file belong to another setting.
    """

    def __init__(self, setting: Setting, folder: Path, file: Path, untuned: bool) -> None:
        self._setting, self._folder, self._file = setting, folder, file
        self._untuned = untuned
        self.content: dict[str, Any] = {
            'setting': {**asdict(setting), 'untuned': untuned},
            'machine': machine(),
            'versions': versions_of('torch', 'torch-pruning'),
            'baselines': {},
            'trials': {},
            'runs': {},
        }
        if file.is_file():
            earlier = json.loads(file.read_text(encoding='utf-8'))
            if earlier['setting'] != self.content['setting']:
                raise SystemExit(
                    f'{file} has results of the setting {earlier["setting"]}, but this is '
                    f'{self.content["setting"]}; give another file with --results'
                )
            self.content = earlier

    def tune(self, methods: list[str], keep: float) -> None:
        """Try each method with each of its strengths and rates, on validation images."""
        for method in methods:
            for trial in TRIALS[METHODS[method].scaled]:
                self._do('trials', Job(method, 0, keep, validation=True, **trial))

    def run(self, job: Job) -> None:
        """Run a job with what its method was tuned to."""
        self._do('runs', replace(job, **self._best(job.method)))

    def _best(self, method: str) -> dict[str, float]:
        """Return the best trial of a method.

        Raises:
            SystemExit: a trial is missing.
        """
        if self._untuned:
            return {}
        trials = list(self._trials(method))
        if len(trials) < len(TRIALS[METHODS[method].scaled]):
            raise SystemExit(f'{method} is not tuned; run first: python benchmarks/rivals.py tune')
        best = max(trials, key=lambda trial: trial['finetuned'])
        return {'factor': best['factor'], 'lr': best['lr']}

    def _trials(self, method: str) -> Iterator[dict[str, Any]]:
        return (trial for trial in self.content['trials'].values() if trial['method'] == method)

    def _do(self, kind: str, job: Job) -> None:
        """Run a job in a process of its own, unless the file has its result."""
        if job.baseline.name not in self.content['baselines']:
            self._store('baselines', job.baseline.name, self._result(job.baseline))
        # A run is known by what it is, a trial also by what is tried.
        name = job.trial_name if kind == 'trials' else job.name
        if name not in self.content[kind]:
            self._store(kind, name, self._result(job))

    def _result(self, job: Job) -> dict[str, Any]:
        given = {'job': asdict(job), 'setting': asdict(self._setting)}
        script = Path(__file__).with_name('rivals_job.py')
        command = [sys.executable, str(script), json.dumps(given), str(self._folder)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            raise SystemExit(f'{job.trial_name} failed with exit code {done.returncode}')
        result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return {'method': job.method, 'factor': job.factor, 'lr': job.lr, **result}

    def _store(self, kind: str, name: str, result: dict[str, Any]) -> None:
        print(f'{name}: {result}', flush=True)
        self.content[kind][name] = result
        write_json(self._file, self.content)


if __name__ == '__main__':
    main()
