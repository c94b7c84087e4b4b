"""Runs the configs on the digits with several seeds, and writes the table docs/digits.md.

python benchmarks/digits.py [--seeds 0 1 2] [--work-dir DIR]
"""

from __future__ import annotations

import argparse
import platform
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from easypruner.report.result import RunResult

ROOT = Path(__file__).resolve().parent.parent
_SUFFIX = '_r20_digits'
CONFIGS = tuple(
    path.stem.removesuffix(_SUFFIX) for path in sorted((ROOT / 'configs').glob(f'*{_SUFFIX}.py'))
)
ROWS = ('baseline', 'sparse', 'pruned', 'calibrated', 'finetuned')

_TEMPLATE = """# The recipes on the digits

Written by `benchmarks/digits.py`: ResNet-20 on scikit-learn's digits (1,437 images to train on,
360 to validate on), half the MACs, {seeds} seeds, mean ± standard deviation of the top-1 accuracy
in percent. All recipes of [the cookbook](cookbook.md) train for the same number of epochs. Measured
with torch {torch} on {machine} (CPU), one thread.

| method | baseline | before the cut | right after it | recalibrated | fine-tuned | MACs left \
| removed scales, median |
|---|---|---|---|---|---|---|---|
{lines}

One image is 0.28 points of the validation accuracy. Empty cells are stages that a recipe does not
have; `agp` cuts four times and has a row for each. *Fine-tuned* is the end of each recipe, for
`scratch` the training from new weights. On a task as small as this one fine-tuning makes up for
any cut, a random one included, so the last accuracies do not tell the methods apart; what they
differ in is the cut itself.
"""


def main() -> None:
    """Run the configs that have no result, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/digits_benchmark'))
    args = parser.parse_args()
    folders = {name: [_run(name, seed, args.work_dir) for seed in args.seeds] for name in CONFIGS}
    page = ROOT / 'docs' / 'digits.md'
    page.write_text(_page(folders, args.seeds), encoding='utf-8')


def _run(name: str, seed: int, work_dir: Path) -> Path:
    folder = work_dir / f'{name}_{seed}'
    if not (folder / 'summary.json').is_file():
        command = [sys.executable, str(ROOT / 'tools' / 'prune.py')]
        command += [str(ROOT / 'configs' / f'{name}{_SUFFIX}.py'), '--seed', str(seed)]
        command += ['--work-dir', str(folder), '--overwrite']
        subprocess.run(command, check=True)
    return folder


def _page(folders: dict[str, list[Path]], seeds: Sequence[int]) -> str:
    from easypruner.report.result import RunResult

    results = {name: [RunResult.load(f) for f in runs] for name, runs in folders.items()}
    torch_version = results[CONFIGS[0]][0].versions['torch']
    lines = [_line(name, runs) for name, runs in results.items()]
    return _TEMPLATE.format(
        seeds=len(seeds),
        torch=torch_version,
        machine=platform.machine(),
        lines='\n'.join(lines),
    )


def _line(name: str, runs: Sequence[RunResult]) -> str:
    cells = [f'`{name}{_SUFFIX}`']
    for row in ROWS:
        values = [r.accuracy for run in runs for r in run.rows if r.name == row]
        cells.append(f'{statistics.mean(values):.2f} ± {_spread(values):.2f}' if values else '')
    shares = [run.rows[-1].macs / run.rows[0].macs for run in runs]
    cells.append(f'{100 * statistics.mean(shares):.1f} %')
    medians = [run.scales.median for run in runs if run.scales is not None]
    cells.append(f'{statistics.mean(medians):.1e}' if medians else '')
    return '| ' + ' | '.join(cells) + ' |'


def _spread(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


if __name__ == '__main__':
    main()
