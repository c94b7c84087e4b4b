"""Runs the studies of docs/evidence.md, collects their results, and writes the page.

python benchmarks/evidence.py               everything, or what is left of it
python benchmarks/evidence.py --only l1 --seeds 0 --keep 0.15
python benchmarks/evidence.py --quick       two short runs of each method, to try it
python benchmarks/evidence.py --collect     the results of what has finished, and the page

It needs the extra ``bench``. The studies are those of benchmarks/studies. The most telling runs
come first: four methods at 15 % of the MACs, then all, then other budgets. A method is tuned once,
at the first of its budgets, with its first seed.

Runs and the stages that they share are kept in the user's cache, so the command may be stopped at
any time. What has finished is in benchmarks/results/evidence.json and is not repeated, not on
another machine either.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import evidence_results
from coverage_page import machine
from evidence_page import write_page
from evidence_plan import PHASES, STUDIES, Part, Phase, Selection, parts, planned

from easypruner.base.cache import cache_folder
from easypruner.base.files import write_json, write_whole
from easypruner.base.versions import versions_of

ROOT = Path(__file__).resolve().parent
RESULTS = ROOT / 'results' / 'evidence.json'
_INTERRUPTED = 130


def main() -> None:
    """Run the studies, write the results and the page."""
    args = _arguments()
    folder = args.work_dir or cache_folder() / ('evidence_quick' if args.quick else 'evidence')
    out = args.results or (folder / 'evidence.json' if args.quick else RESULTS)
    page = args.page or (folder / 'evidence.md' if args.quick else ROOT.parent / 'docs/evidence.md')
    results = json.loads(out.read_text()) if out.is_file() else {'quick': args.quick, 'studies': {}}
    _collect(results, folder)
    status = 0
    for phase in () if args.collect else map(Phase, STUDIES) if args.quick else PHASES:
        if phase.study not in args.studies:
            continue
        known = results['studies'].setdefault(phase.study, {'lines': {}, 'tuned': []})
        wanted = Selection(args.only, args.seeds, args.keep)
        for part in list(parts(phase, known, wanted, args.quick)):
            code = _execute(part, part.text(known), folder, args)
            _collect(results, folder)
            _write(results, out, page)
            if code == _INTERRUPTED:
                sys.exit(code)
            status = max(status, code)
    _write(results, out, page)
    print(f'written: {out}, {page}')
    sys.exit(status)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--studies', nargs='+', choices=STUDIES, default=STUDIES)
    parser.add_argument('--only', nargs='+', default=[], help='names of methods')
    parser.add_argument('--seeds', nargs='+', type=int, default=[])
    parser.add_argument('--keep', nargs='+', type=float, default=[], help='shares of MACs')
    parser.add_argument('--jobs', type=int, default=1, help='runs at the same time')
    parser.add_argument('--quick', action='store_true', help='short runs, to try it')
    parser.add_argument('--collect', action='store_true', help='run nothing')
    parser.add_argument('--work-dir', type=Path, help="default: in the user's cache")
    parser.add_argument('--store', help="folder of shared stages; default: in the user's cache")
    parser.add_argument('--results', type=Path, help='the file of the results')
    parser.add_argument('--page', type=Path, help='the page')
    return parser.parse_args()


def _execute(part: Part, text: str, folder: Path, args: argparse.Namespace) -> int:
    """Run a part of a study, with the text of its study file; return the exit code."""
    own = folder / part.study / part.folder(text)
    own.parent.mkdir(parents=True, exist_ok=True)
    file = own.parent / f'{own.name}.py'
    write_whole(file, text)
    seeds = ', '.join(map(str, part.seeds))
    print(f'{part.study}, {part.keep:g} of the MACs, seeds {seeds}: {", ".join(part.methods)}')
    command = [sys.executable, '-m', 'easypruner', 'study', str(file), '--out', str(own)]
    command += ['--jobs', str(args.jobs), *(['--store', args.store] if args.store else [])]
    command += ['--resume'] if (own / 'study.json').is_file() else []
    return subprocess.run(command, check=False).returncode


def _collect(results: dict[str, Any], folder: Path) -> None:
    """Add what has finished in the folders of all parts."""
    for name in STUDIES:
        known = results['studies'].setdefault(name, {'lines': {}, 'tuned': []})
        for file in sorted((folder / name).glob('*/study.json')):
            evidence_results.add(known, file.parent)


def _write(results: dict[str, Any], out: Path, page: Path) -> None:
    """Write the results and the page."""
    results |= {'machine': machine(), 'versions': versions_of('torch')}
    for name, study in results['studies'].items():
        study['planned'] = planned(name)
    write_json(out, results)
    write_whole(page, write_page(results))


if __name__ == '__main__':
    main()
