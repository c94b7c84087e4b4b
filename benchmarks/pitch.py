"""Prunes torchcrepe's pitch tracker with the code of docs/example_pitch.md, and fills its tables.

python benchmarks/pitch.py [--parts methods times large] [--threads 2] [--quick] [--restart]
    [--out FILE] [--results FILE]

Results are stored after each method. A method that is there is not repeated, so the script can be
stopped at any time and started again; ``--restart`` measures all anew. It needs torchcrepe, and
onnx, onnxscript and onnxruntime for the times.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import torch
from coverage_page import machine
from pitch_page import PAGE, write_page

import easypruner
from easypruner.base.files import write_json
from easypruner.base.versions import versions_of

RESULTS = Path(__file__).resolve().parent / 'results' / 'pitch.json'
PACKAGES = ('torchcrepe', 'torch', 'onnxruntime')
SHARES = (0.5, 0.25)
SETUP = ('The network', 'Sounds whose pitch is known', 'Learn from the original', 'Prune')
"""The sections of the page whose first blocks define what is measured here."""
QUICK = {'FRAMES': 128, 'HELD_OUT': 20, 'UPDATES': 3}
LARGE = {'SIZE': "'full'", 'FRAMES': 384, 'HELD_OUT': 100}
BATCHES = (1, 64)
PARTS = ('methods', 'times', 'large')


def main() -> None:
    """Measure what is missing, then write the tables of the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--parts', nargs='+', choices=PARTS, default=PARTS)
    parser.add_argument('--threads', type=int, default=2, help='threads of the training')
    parser.add_argument('--quick', action='store_true', help='few sounds, to try the script')
    parser.add_argument('--restart', action='store_true', help='forget earlier results')
    parser.add_argument('--out', type=Path, default=PAGE, help='the page; its tables are replaced')
    parser.add_argument('--results', type=Path, default=RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    study = Study(args.results, QUICK if args.quick else {}, args.restart)
    seconds = 0 if args.quick else 2
    if 'methods' in args.parts:
        study.measure_methods()
    if 'times' in args.parts:
        study.measure_times(seconds)
    if 'large' in args.parts:
        study.measure_large(seconds)
    write_page(study.content, args.out)


class Study:
    """The measurements, with their results in a file.

    Args:
        file: the results, which may have those of an earlier start.
        constants: name -> value of the constants of the page that are changed.
        restart: whether to forget earlier results.

    Raises:
        SystemExit: the results in the file belong to other constants.
    """

    def __init__(self, file: Path, constants: Mapping[str, Any], restart: bool) -> None:
        self._file, self._constants = file, dict(constants)
        self._names = run_page(constants)
        self.content: dict[str, Any] = {
            'constants': {name: self._names[name] for name in ('SIZE', *QUICK)},
            'machine': machine(),
            'versions': versions_of(*PACKAGES),
            'methods': {},
            'times': [],
            'large': None,
        }
        if file.is_file() and not restart:
            earlier = json.loads(file.read_text(encoding='utf-8'))
            if earlier['constants'] != self.content['constants']:
                raise SystemExit(
                    f'{file} has results of {earlier["constants"]}, but this is '
                    f'{self.content["constants"]}; give --restart, or another file with --results'
                )
            self.content = earlier

    def measure_methods(self) -> None:
        """Measure the accuracy of the original, and of each method at each share."""
        if 'original' not in self.content['methods']:
            original = {'finished': self._names['accuracy'](self._names['original'])}
            self._store('methods', 'original', {'macs': 1.0, **original})
        for share, method in product(SHARES, self._names['METHODS']):
            if f'{method} | {share:g}' not in self.content['methods']:
                self._store('methods', f'{method} | {share:g}', self._measured(method, share))

    def _measured(self, method: str, share: float) -> dict[str, Any]:
        names, start = self._names, time.process_time()
        torch.manual_seed(0)
        slimmed = names['prune'](method, share)
        cut = names['accuracy'](slimmed.model)
        names['finish'](method, slimmed.model)
        return {
            'macs': slimmed.summary.after.macs / slimmed.summary.before.macs,
            'params': slimmed.summary.after.params / slimmed.summary.before.params,
            'cut': cut,
            'finished': names['accuracy'](slimmed.model),
            'cpu_seconds': time.process_time() - start,
        }

    def measure_times(self, seconds: float) -> None:
        """Measure the times of the original and of what L1 norm leaves of it.

        Args:
            seconds: the least time of the rounds of one runtime and batch.
        """
        if not self.content['times']:
            networks = {f'{share:g}': self._names['prune']('L1 norm', share) for share in SHARES}
            self.content['times'] = times(self._names, networks, seconds, BATCHES)
            write_json(self._file, self.content)

    def measure_large(self, seconds: float) -> None:
        """Measure the cut of the large network, without training.

        Args:
            seconds: the least time of the rounds of one runtime and batch.
        """
        if self.content['large']:
            return
        names = run_page({**LARGE, **self._constants, 'SIZE': LARGE['SIZE']})
        networks = {f'{share:g}': names['prune']('L1 norm', share) for share in SHARES}
        found = {'original': {'macs': 1.0, 'cut': names['accuracy'](names['original'])}}
        for share, slimmed in networks.items():
            macs = slimmed.summary.after.macs / slimmed.summary.before.macs
            found[share] = {'macs': macs, 'cut': names['accuracy'](slimmed.model)}
        self.content['large'] = {
            'accuracy': found,
            'sounds': names['FRAMES'],
            'times': times(names, networks, seconds, BATCHES[:1]),
        }
        write_json(self._file, self.content)

    def _store(self, kind: str, name: str, result: dict[str, Any]) -> None:
        print(f'{name}: {result}', flush=True)
        self.content[kind][name] = result
        write_json(self._file, self.content)


def times(
    names: Mapping[str, Any], pruned: Mapping[str, Any], seconds: float, batches: Sequence[int]
) -> list[Any]:
    """Return the times of the original of the page and of pruned networks.

    Args:
        names: the names of the page.
        pruned: name -> what ``easypruner.slim`` has returned.
        seconds: the least time of the rounds of one runtime and batch.
        batches: the numbers of frames of a pass.
    """
    measured = easypruner.benchmark(
        {'original': names['original'], **pruned},
        names['frames'][:1],
        ['TorchEager', 'OnnxRuntime'],
        batches=batches,
        repeats=20 if seconds else 1,
        seconds=seconds,
        memory=False,
        clock='cpu',
    )
    rows: list[Any] = measured.to_json()['rows']
    return rows


def run_page(constants: Mapping[str, Any]) -> dict[str, Any]:
    """Run the code of the page that defines networks, sounds and functions; return its names.

    Args:
        constants: name -> value of the constants of the page that are changed.
    """
    names: dict[str, Any] = {'__name__': 'page'}
    for section in PAGE.read_text(encoding='utf-8').split('\n## '):
        title, _, text = section.partition('\n')
        blocks = re.findall(r'```python\n(.*?)```\n', text, re.DOTALL)
        # The last block of the section on pruning is an example.
        for block in blocks[:1] if title == 'Prune' else blocks if title in SETUP else []:
            for name, value in constants.items():
                block = re.sub(
                    rf'^{name} = [^#\n]+', f'{name} = {value}', block, flags=re.MULTILINE
                )
            with _without_own_folder():
                exec(compile(block, str(PAGE), 'exec'), names)
    return names


@contextlib.contextmanager
def _without_own_folder() -> Iterator[None]:
    """Import nothing from the folder of this script: torchcrepe's numba would find coverage.py."""
    before, own = sys.path[:], Path(__file__).resolve().parent
    sys.path[:] = [path for path in before if Path(path).resolve() != own]
    try:
        yield
    finally:
        sys.path[:] = before


if __name__ == '__main__':
    main()
