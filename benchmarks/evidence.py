"""Runs the studies of docs/evidence.md, collects their results, and writes the page.

python benchmarks/evidence.py                       everything, or what is left of it
python benchmarks/evidence.py --only l1 --seeds 0   a part of it
python benchmarks/evidence.py --quick               two short runs of each method, to try it
python benchmarks/evidence.py --collect             the results of what has finished, and the page

It needs the extra ``bench``. The studies are those of benchmarks/studies. The most telling runs
come first: all methods at 15 % of the MACs with one seed, then with all seeds, then all others.
Runs and the stages that they share are kept in the user's cache, and a run that has finished is not
repeated, so the command may be stopped at any time.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from coverage_page import machine
from evidence_page import write_page
from evidence_results import collect

from easypruner.base.cache import cache_folder
from easypruner.base.files import write_json, write_whole
from easypruner.base.versions import versions_of
from easypruner.study.study_file import Study, read_study

ROOT = Path(__file__).resolve().parent
RESULTS = ROOT / 'results' / 'evidence.json'
STUDIES = ('methods_r20', 'methods_vgg6bn', 'variants_r20', 'variants_vgg6bn')
_INTERRUPTED = 130
_QUICK = """
from runpy import run_path as _run_path
_study = _run_path({file!r}, dict(grid=grid, choice=choice, tune=tune))
configs = {{
    name: {{key: value for key, value in entry.items() if key != 'tune'}}
    for name, entry in _study['configs'].items()
}}
options = {{**_study['options'], **{options!r}}}
budgets = _study['budgets'][:1]
seeds = [0, 1]
random = scratch = False
"""
"""A study file that is a short form of another one."""
_QUICK_OPTIONS = {
    'train_cfg.max_epochs': 4,
    'train_dataloader.dataset.indices': 256,
    'train_dataloader.dataset.variants': 2,
    'val_dataloader.dataset.indices': 250,
}


@dataclass(frozen=True)
class Phase:
    """A part of a study; empty lists stand for all.

    Attributes:
        study: the name of the study.
        budgets: the shares of MACs to keep.
        seeds: the seeds.
        only: the names of methods.
    """

    study: str
    budgets: Sequence[float] = ()
    seeds: Sequence[int] = ()
    only: Sequence[str] = ()

    def within(self, study: Study, only: Sequence[str], seeds: Sequence[int]) -> Phase | None:
        """Return what is left of the phase for some methods and seeds; None if nothing is.

        Args:
            study: the study.
            only: names of methods; empty for all.
            seeds: seeds; empty for all.
        """
        names = [m.name for m in study.methods if not only or m.name in only]
        found = [
            seed for seed in self.seeds or study.seeds if seed in (seeds or study.seeds)
        ]  # fmt: skip
        if not names or not found:
            return None
        return Phase(self.study, self.budgets, found, names)

    def options(self) -> list[str]:
        """Return the options of ``easypruner study``."""
        given = {'--budgets': self.budgets, '--seeds': self.seeds, '--only': self.only}
        return [text for name, values in given.items() if values
                for text in (name, *map(str, values))]  # fmt: skip


PHASES = (
    *(Phase(study, (0.15,), seeds) for study in STUDIES[:2] for seeds in ((0,), ())),
    *(Phase(study) for study in STUDIES[2:]),
    *(Phase(study) for study in STUDIES[:2]),
)
"""The parts of all studies, the most telling ones first."""


def main() -> None:
    """Run the studies, write the results and the page."""
    args = _arguments()
    folder = args.work_dir or cache_folder() / ('evidence_quick' if args.quick else 'evidence')
    status = 0 if args.collect else max(_execute(args, folder), default=0)
    results = {
        'quick': args.quick,
        'studies': {name: collect(folder / name) for name in STUDIES
                    if (folder / name / 'study.json').is_file()},
        'machine': machine(),
        'versions': versions_of('torch'),
    }  # fmt: skip
    out = args.results or (folder / 'evidence.json' if args.quick else RESULTS)
    write_json(out, results)
    page = args.page or (folder / 'evidence.md' if args.quick else ROOT.parent / 'docs/evidence.md')
    write_whole(page, write_page(results))
    print(f'written: {out}, {page}')
    sys.exit(status)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--studies', nargs='+', choices=STUDIES, default=STUDIES)
    parser.add_argument('--only', nargs='+', default=[], help='names of methods')
    parser.add_argument('--seeds', nargs='+', type=int, default=[])
    parser.add_argument('--jobs', type=int, default=1, help='runs at the same time')
    parser.add_argument('--quick', action='store_true', help='short runs, to try it')
    parser.add_argument('--collect', action='store_true', help='run nothing')
    parser.add_argument('--work-dir', type=Path, help="default: in the user's cache")
    parser.add_argument('--store', help="folder of shared stages; default: in the user's cache")
    parser.add_argument('--results', type=Path, help='the file of the results')
    parser.add_argument('--page', type=Path, help='the page')
    return parser.parse_args()


def _execute(args: argparse.Namespace, folder: Path) -> Iterator[int]:
    """Run all phases; yield the exit code of each."""
    files = {name: _study_file(name, args.quick, folder) for name in args.studies}
    studies = {name: read_study(file) for name, file in files.items()}
    phases = [
        part
        for phase in ([Phase(name) for name in args.studies] if args.quick else PHASES)
        if phase.study in studies
        and (part := phase.within(studies[phase.study], args.only, args.seeds)) is not None
    ]
    for number, phase in enumerate(phases, 1):
        print(f'part {number} of {len(phases)}: {phase.study} {" ".join(phase.options())}')
        own = folder / phase.study
        command = [sys.executable, '-m', 'easypruner', 'study', str(files[phase.study])]
        command += ['--out', str(own), '--jobs', str(args.jobs), *phase.options()]
        command += ['--store', args.store] if args.store else []
        command += ['--resume'] if (own / 'study.json').is_file() else []
        code = subprocess.run(command, check=False).returncode
        if code == _INTERRUPTED:
            sys.exit(code)
        yield code


def _study_file(name: str, quick: bool, folder: Path) -> Path:
    file = ROOT / 'studies' / f'{name}.py'
    if not quick:
        return file
    short = folder / 'studies' / f'{name}.py'
    short.parent.mkdir(parents=True, exist_ok=True)
    write_whole(short, _QUICK.format(file=str(file), options=_QUICK_OPTIONS))
    return short


if __name__ == '__main__':
    main()
