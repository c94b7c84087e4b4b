"""Runs one study on local processes, by submitit and on Ray; writes docs/study_executors.md.

python benchmarks/study_executors.py [--epochs 4] [--images 1000] [--out docs/study_executors.md]

It needs the extras ``bench``, ``submitit`` and ``ray``. Where there is no Slurm, submitit starts
processes of this machine, and Ray a cluster on it. The study has 2 methods, 2 seeds and 2 budgets
on hard MNIST images; its schedules are short, because only what is equal is looked at. Each
executor has an empty store of stages of its own.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from coverage_page import machine
from study_kills import STUDY, Study, short_options

from easypruner.base.files import write_json, write_whole
from easypruner.base.versions import versions_of
from easypruner.report.markup import markdown_table
from easypruner.report.text import plural

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / 'benchmarks' / 'results' / 'study_executors.json'
EXECUTORS = ('local', 'submitit', 'ray')
METHODS, SEEDS, BUDGETS = ('masksparsity', 'l1'), (0, 1), (0.3, 0.15)
_PAGE = """# One study on three executors

Written by `benchmarks/study_executors.py` on {machine}, with {versions}. The study: {methods} with
ResNet-20 of width 8 on {images} training images of `mnist5k_hard`, {seeds}, {budgets} of the MACs,
{epochs} of the baseline and short schedules after it, so the accuracies are low. Submitit and Ray
start processes of this machine.

A number is the accuracy at the end in percent, mean over the seeds.

{table}

{equal} of {lines} lines of the comparisons are the same for all executors, in all accuracies, MACs
and parameters.
"""


def main() -> None:
    """Run the study on all executors, and write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--epochs', type=int, default=4, help='epochs of the baseline')
    parser.add_argument('--images', type=int, default=1000, help='images that are trained on')
    parser.add_argument('--executors', nargs='+', choices=EXECUTORS, default=EXECUTORS)
    parser.add_argument('--results', type=Path, default=RESULTS)
    parser.add_argument('--out', type=Path, default=ROOT / 'docs' / 'study_executors.md')
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix='easypruner-') as scratch:
        found = _measured(args, Path(scratch))
    write_json(args.results, found)
    write_whole(args.out, page(found))
    print(f'written: {args.results}, {args.out}')


def _measured(args: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    file = scratch / 'two_methods.py'
    given = {'methods': list(METHODS), 'seeds': list(SEEDS), 'budgets': list(BUDGETS)}
    file.write_text(STUDY.format(options=short_options(args), **given))
    lines = {}
    for name in args.executors:
        study = Study(file, scratch / name, ('--executor', name))
        study.finish()
        lines[name] = study.lines()
        print(f'{name}: {len(lines[name])} lines', flush=True)
    return {
        **given, 'epochs': args.epochs, 'images': args.images, 'lines': lines,
        'machine': machine(),
        'versions': versions_of('torch', *(name for name in args.executors if name != 'local')),
    }  # fmt: skip


def page(found: dict[str, Any]) -> str:
    """Return the page.

    Args:
        found: the content of benchmarks/results/study_executors.json.
    """
    lines = found['lines']
    together = list(zip(*lines.values(), strict=True))
    rows = [
        (same[0]['name'], *(f'{line["final"]["mean"]:.2f}' for line in same)) for same in together
    ]
    return _PAGE.format(
        machine=found['machine'],
        methods=' and '.join(found['methods']),
        seeds=plural(len(found['seeds']), 'seed'),
        budgets=' and '.join(f'{keep:.0%}' for keep in found['budgets']),
        images=f'{found["images"]:,}',
        epochs=plural(found['epochs'], 'epoch'),
        table=markdown_table(('result', *lines), rows).rstrip(),
        equal=sum(all(line == same[0] for line in same) for same in together),
        lines=len(together),
        versions=', '.join(f'{name} {version}' for name, version in found['versions'].items()),
    )


if __name__ == '__main__':
    main()
