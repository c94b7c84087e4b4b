"""Measures what sparsity stages do to the channels that are removed, and writes docs/push.md.

python benchmarks/push.py optimizers   every optimizer, on the digits
python benchmarks/push.py strength     a grid of strengths, on the digits and MNIST
python benchmarks/push.py recipes      recipes over seeds, on the digits and MNIST
python benchmarks/push.py transformer  AdamW on a small vision transformer and a ConvNeXt
python benchmarks/push.py regularizers the other regularizers under SGD and AdamW, on the digits
python benchmarks/push.py page         writes docs/push.md from the results

It needs the extra ``bench``. Results are stored in benchmarks/results. A run that has finished is
not repeated.
"""

from __future__ import annotations

import argparse
from functools import partial
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

from coverage_page import machine
from push_recipes import select
from push_runs import (
    DIGITS,
    OPTIMIZERS,
    Network,
    accuracies,
    run,
    schedule_of,
    settings_of,
)

from easypruner.base.files import write_json
from easypruner.base.versions import versions_of

RESULTS = Path(__file__).resolve().parent / 'results'
FORMS = ('gradient', 'proximal')
REACH = 5.0
_WITHOUT_LOSS = 0.5
"""The reach of runs without a loss: below 1, so that no scale arrives at zero."""
_EPOCHS = 6


def main() -> None:
    """Run a part of the measurements, or write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('part', choices=[*_PARTS, 'page'])
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/push'))
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2, 3, 4])
    parser.add_argument('--only', nargs='+', help='names of optimizers, data sets or regularizers')
    parser.add_argument('--workers', type=int, default=1)
    parser.add_argument('--out', type=Path, help='the file of the results')
    args = parser.parse_args()
    if args.part == 'page':
        from push_page import write_page

        write_page(RESULTS, args.out)
        return
    content = {
        'results': _PARTS[args.part](args),
        'machine': machine(),
        'versions': versions_of('torch'),
    }
    write_json(args.out or RESULTS / f'push_{args.part}.json', content)


def _optimizers(args: argparse.Namespace) -> dict[str, Any]:
    names = [name for name in OPTIMIZERS if args.only is None or name in args.only]
    jobs = [(name, form) for name in names for form in FORMS]
    with ThreadPool(args.workers) as pool:
        found = pool.map(lambda job: _optimizer(*job, args.work_dir / 'optimizers'), jobs)
    return {f'{name} | {form}': result for (name, form), result in zip(jobs, found, strict=True)}


def _optimizer(name: str, form: str, folder: Path) -> dict[str, Any]:
    """Return what a stage with an optimizer and a form does."""
    folder = folder / name.replace(', ', '_').replace(' ', '_')
    train = dict(type='Train', name='baseline', epochs=8, row='baseline')
    config = {**settings_of(name), 'stages': [train, dict(type='Report')]}
    baseline = run(config, DIGITS, folder / 'baseline')
    strength = _strength_of(name, form, REACH)
    stages = [
        select('L1Norm', 0.5),
        dict(
            type='Train',
            name='sparse',
            epochs=_EPOCHS,
            row='sparse',
            regularizer=dict(type='MaskSparsity', strength=strength, apply=form),
        ),
        dict(type='Prune'),
        dict(type='Calibrate'),
        dict(type='Report'),
    ]
    trained = {'load_from': str(next(baseline.glob('*_baseline')) / 'weights.pth')}
    real = run({**settings_of(name), **trained, 'stages': stages}, DIGITS, folder / form)
    rows = accuracies(real)
    network = Network.of(real, DIGITS)
    scales, biases = network.removed('weight'), network.removed('bias')
    return {
        'strength': strength,
        'announced': _announced(name, form, strength),
        **_without_loss(name, form, folder / f'{form}_without_loss'),
        'scales': [float(scales.median()), float(scales.max())],
        'bias': float(biases.max()),
        'accuracy': [rows[row] for row in ('sparse', 'pruned', 'calibrated')],
    }


def _without_loss(name: str, form: str, folder: Path) -> dict[str, float]:
    """Return the reach that is announced and measured for a stage whose loss is 0."""
    strength = _strength_of(name, form, _WITHOUT_LOSS)
    push = dict(type='MaskSparsity', strength=strength, apply=form, biases=False)
    stages = [
        select('L1Norm', 0.5),
        dict(type='Train', name='sparse', epochs=_EPOCHS, regularizer=push),
    ]
    stages += [dict(type='Evaluate', row='end'), dict(type='Report')]
    no_loss = {'model': dict(head=dict(loss=dict(loss_weight=0.0)))}
    config = {**settings_of(name, decay=False), **no_loss, 'stages': stages}
    network = Network.of(run(config, DIGITS, folder), DIGITS)
    return {
        'announced_without_loss': _announced(name, form, strength, decay=False),
        'measured_without_loss': 1 - float(network.removed('weight').median()),
    }


def _regularizer(name: str, form: str, strength: Any, decay: bool) -> Any:
    """Return MaskSparsity on the schedule of an optimizer, and this schedule."""
    from easypruner_plugins.mask_sparsity import MaskSparsity

    slowest = schedule_of(settings_of(name, decay), _EPOCHS)
    regularizer = MaskSparsity(strength, apply=form)
    regularizer.schedule(slowest)
    return regularizer, slowest


def _strength_of(name: str, form: str, reach: float) -> Any:
    """Return the strength of a form: under adaptive optimizers, both forms have the same."""
    regularizer, schedule = _regularizer(name, 'proximal', dict(reach=reach), True)
    if form == 'gradient' and schedule.optimizer.adaptive:
        return regularizer.strength
    return dict(reach=reach)


def _announced(name: str, form: str, strength: Any, decay: bool = True) -> float:
    regularizer, schedule = _regularizer(name, form, strength, decay)
    return float(regularizer.reach(schedule))


def _transformer(args: argparse.Namespace) -> dict[str, dict[str, float]]:
    from push_transformer import results_of

    return results_of(args.work_dir / 'transformer')


def _recipes(args: argparse.Namespace) -> dict[str, Any]:
    from push_recipes import jobs_of, result_of

    jobs = [job for job in jobs_of(args.seeds) if args.only is None or job.data in args.only]
    with ThreadPool(args.workers) as pool:
        found = pool.map(partial(result_of, folder=args.work_dir / 'recipes'), jobs)
    return {job.name: result for job, result in zip(jobs, found, strict=True)}


def _strength(args: argparse.Namespace) -> dict[str, Any]:
    from push_strength import outcome_of, trials_of

    trials = [t for t in trials_of(args.seeds) if args.only is None or t.data in args.only]
    with ThreadPool(args.workers) as pool:
        found = pool.map(partial(outcome_of, folder=args.work_dir / 'recipes'), trials)
    return {trial.name: result for trial, result in zip(trials, found, strict=True)}


def _regularizers(args: argparse.Namespace) -> dict[str, Any]:
    from push_regularizers import jobs_of, result_of

    jobs = jobs_of(args.only)
    with ThreadPool(args.workers) as pool:
        found = pool.map(partial(result_of, folder=args.work_dir / 'regularizers'), jobs)
    return {job.name: result for job, result in zip(jobs, found, strict=True)}


_PARTS = {
    'optimizers': _optimizers,
    'strength': _strength,
    'recipes': _recipes,
    'transformer': _transformer,
    'regularizers': _regularizers,
}
"""Part -> the function that measures it."""


if __name__ == '__main__':
    main()
