"""Measures what a Train stage costs beyond a bare MMEngine Runner, and writes a JSON file.

python benchmarks/stage_overhead.py [--pairs 12] [--epochs 4] [--out FILE] [--profile]

Both train the same config (ResNet-20 on scikit-learn's digits) for the same epochs, with the same
hooks of MMEngine and the same checkpoints. A Train stage also resumes exactly, checks its numbers,
shows its progress and saves its weights. Seconds are CPU time of the process in one thread, so
other processes are not counted. The two alternate within each pair, and the order changes from pair
to pair; the result is the median of the ratios of the pairs, with its quartiles.
"""

from __future__ import annotations

import argparse
import cProfile
import io
import json
import pstats
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from coverage_page import machine
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import Runner
from rich.console import Console

from easypruner.base.files import write_json
from easypruner.base.versions import versions_of
from easypruner.engine.compat import prepare, quiet
from easypruner.engine.config import model_settings
from easypruner.engine.runner import RunnerPlan, Tracer, runner_config
from easypruner.pipeline.stages.train import _DEFAULT_HOOKS, Train
from easypruner.plugins import load_plugins
from easypruner.strategies.stages.state import PruningState, Run

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / 'benchmarks' / 'results' / 'stage_overhead.json'
CONFIG = ROOT / 'configs' / 'l1_r20_digits.py'


@dataclass(frozen=True)
class Bench:
    """The two trainings.

    Attributes:
        run: the run to which the stage belongs.
        epochs: the number of epochs.
    """

    run: Run
    epochs: int

    def stage(self, folder: Path) -> None:
        """Run a Train stage."""
        run = self.run
        state = PruningState(Run(**{**vars(run), 'work_dir': folder})).at(0, 'train')
        state.stage.mkdir(parents=True)
        Train(epochs=self.epochs).run(state)

    def bare(self, folder: Path) -> None:
        """Run MMEngine's Runner."""
        plan = RunnerPlan(
            folder, seed=0, epochs=self.epochs, overrides={'default_hooks': _DEFAULT_HOOKS}
        )
        QuietRunner.from_cfg(runner_config(self.run.config, plan)).train()


class QuietRunner(Runner):
    """MMEngine's Runner, which does not print its log either."""

    def build_logger(self, *args: Any, **kwargs: Any) -> MMLogger:
        """Build the logger, which only writes files."""
        logger = super().build_logger(*args, **kwargs)
        quiet(logger)
        return logger


def main() -> None:
    """Measure the pairs and write the file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--pairs', type=int, default=12)
    parser.add_argument('--epochs', type=int, default=4)
    parser.add_argument('--out', type=Path, default=RESULTS)
    parser.add_argument('--profile', action='store_true', help='print what a stage spends time on')
    args = parser.parse_args()
    torch.set_num_threads(1)
    bench = make_bench(args.epochs)
    # The first run of each reads data and fills caches.
    seconds(bench.stage), seconds(bench.bare)
    if args.profile:
        print_profile(bench)
        return
    pairs = [measured_pair(bench, number) for number in range(args.pairs)]
    result = summarized(pairs, args.epochs)
    write_json(args.out, result)
    print(sentence(result))


def make_bench(epochs: int) -> Bench:
    """Return the trainings of the config on the digits."""
    load_plugins()
    prepare()
    config = Config.fromfile(CONFIG)
    init_default_scope(config.get('default_scope', 'mmpretrain'))
    run = Run(
        config=config,
        name='stage_overhead',
        work_dir=Path(),
        seed=0,
        manager=load_plugins().manager,
        console=Console(file=io.StringIO()),
        trace=Tracer(config, ()),
    )
    # The original model has to be the first that is traced.
    run.trace(MODELS.build(model_settings(config)))
    return Bench(run, epochs)


def measured_pair(bench: Bench, number: int) -> dict[str, float]:
    """Return the CPU seconds of a stage and of a bare Runner; every second pair is the reverse."""
    trainings: list[tuple[str, Callable[[Path], None]]]
    trainings = [('stage', bench.stage), ('bare', bench.bare)]
    found = {
        name: seconds(train) for name, train in (reversed(trainings) if number % 2 else trainings)
    }
    print(f'pair {number}: {found["stage"]:.2f} s, bare {found["bare"]:.2f} s', flush=True)
    return found


def seconds(train: Callable[[Path], None]) -> float:
    """Return the CPU seconds of a training."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        train(Path(folder) / 'run')
        return time.process_time() - start


def print_profile(bench: Bench) -> None:
    """Print the functions of EasyPruner that take most time in a stage."""
    profile = cProfile.Profile()
    with tempfile.TemporaryDirectory() as folder:
        profile.runcall(bench.stage, Path(folder) / 'run')
    stats = pstats.Stats(profile).sort_stats('cumulative')
    stats.print_stats('easypruner', 40)


def summarized(pairs: Sequence[dict[str, float]], epochs: int) -> dict[str, Any]:
    """Return the content of the JSON file."""
    ratios = [pair['stage'] / pair['bare'] for pair in pairs]
    low, middle, high = statistics.quantiles(ratios, n=4, method='inclusive')
    return {
        'config': CONFIG.name,
        'epochs': epochs,
        'pairs': list(pairs),
        'ratio': {'median': middle, 'quartiles': [low, high]},
        'machine': machine(),
        'torch': versions_of('torch')['torch'],
        'date': datetime.now(timezone.utc).date().isoformat(),
    }


def sentence(result: dict[str, Any]) -> str:
    """Return the result in a sentence, for a page.

    >>> ratio = {'median': 1.013, 'quartiles': [1.008, 1.02]}
    >>> sentence({'ratio': ratio, 'pairs': [{}] * 12, 'epochs': 4, 'machine': 'a CPU'})
    'A Train stage takes 1.3 % more CPU time than a bare MMEngine Runner (median of 12 pairs of 4 \
epochs, quartiles 0.8 to 2.0 %; a CPU).'
    """
    low, middle, high = (
        100 * (ratio - 1)
        for ratio in (
            result['ratio']['quartiles'][0],
            result['ratio']['median'],
            result['ratio']['quartiles'][1],
        )
    )
    return (
        f'A Train stage takes {middle:.1f} % more CPU time than a bare MMEngine Runner (median of '
        f'{len(result["pairs"])} pairs of {result["epochs"]} epochs, quartiles {low:.1f} to '
        f'{high:.1f} %; {result["machine"]}).'
    )


def read_sentence(file: Path = RESULTS) -> str:
    """Return the sentence for the measured file."""
    return sentence(json.loads(file.read_text(encoding='utf-8')))


if __name__ == '__main__':
    main()
