"""The recipes that benchmarks/push.py compares over seeds, on the digits and on MNIST images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from push_runs import DIGITS, MNIST, Stages, accuracies, run

SHARES = (0.5, 0.3, 0.15)
"""The shares of MACs that stay."""
STRENGTHS = {f'reach{reach}': float(reach) for reach in (20, 40, 80)}
"""Recipe with a fixed strength -> its reach."""
RIVALS = ('l1', 'scratch', 'slimming', 'paper', *STRENGTHS)
"""The recipes that are compared with ``'until'``, at the lowest share."""
EPOCHS = {'digits': 6, 'mnist': 12}
"""Data -> the number of epochs of the sparsity stage, and of fine-tuning."""
BASES = {'digits': DIGITS, 'mnist': MNIST}
_ADAMW = {'digits': 2e-3, 'mnist': 1e-2}
ONE_GROUP = 0.7
"""The largest share of a group that may be removed."""


@dataclass(frozen=True)
class Job:
    """A run of a recipe.

    Attributes:
        data: ``'digits'`` or ``'mnist'``.
        optimizer: ``'SGD'`` or ``'AdamW'``.
        recipe: ``'until'``, or a name of :data:`RIVALS`.
        keep: the share of MACs that stays.
        seed: the seed of the run.
    """

    data: str
    optimizer: str
    recipe: str
    keep: float
    seed: int

    @property
    def name(self) -> str:
        """A name that no other job has."""
        return f'{self.data}_{self.optimizer}_{self.recipe}_{self.keep:g}_{self.seed}'


def jobs_of(seeds: Sequence[int]) -> list[Job]:
    """Return all jobs."""
    jobs = [
        Job(data, optimizer, 'until', keep, seed)
        for data in BASES
        for optimizer in ('SGD', 'AdamW')
        for keep in SHARES
        for seed in seeds
    ]
    return jobs + [
        Job('mnist', 'SGD', rival, SHARES[-1], seed) for rival in RIVALS for seed in seeds
    ]


def baseline_of(data: str, optimizer: str, seed: int, folder: Path) -> Path:
    """Train the baseline of runs unless it has been trained before; return its weights."""
    stages = [_baseline(8), dict(type='Report')]
    config = {'stages': stages, **optimizer_keys(data, optimizer)}
    done = run(config, BASES[data], folder / f'{data}_{optimizer}_baseline_{seed}', seed)
    return (next(done.glob('*_baseline')) / 'weights.pth').resolve()


def result_of(job: Job, folder: Path) -> dict[str, float]:
    """Run a job unless it has finished before; return row -> accuracy in percent."""
    weights = baseline_of(job.data, job.optimizer, job.seed, folder)
    load = dict(type='Evaluate', checkpoint=str(weights), row='baseline')
    config = {
        'graph': dict(limits={'*': dict(max_removed=ONE_GROUP)}),
        'stages': [load, *_stages(job), dict(type='Report')],
        **optimizer_keys(job.data, job.optimizer),
    }
    return accuracies(run(config, BASES[job.data], folder / job.name, job.seed))


def optimizer_keys(data: str, optimizer: str) -> dict[str, Any]:
    """Return the keys of a config that choose an optimizer."""
    if optimizer == 'SGD':
        return {}
    adamw = dict(type='AdamW', lr=_ADAMW[data], weight_decay=0.05, _delete_=True)
    return {'optim_wrapper': dict(optimizer=adamw)}


def _baseline(epochs: int) -> dict[str, Any]:
    return dict(type='Train', name='baseline', epochs=epochs, row='baseline')


def _stages(job: Job) -> Stages:
    epochs = EPOCHS[job.data]
    cut = [dict(type='Prune'), dict(type='Calibrate')]
    l1, finetune = select('L1Norm', job.keep), train('finetune', epochs, 'finetuned')
    if job.recipe == 'until' or job.recipe in STRENGTHS:
        fixed = job.recipe in STRENGTHS
        strength = dict(reach=STRENGTHS[job.recipe]) if fixed else dict(until=1e-3)
        push = dict(type='MaskSparsity', strength=strength, apply='proximal')
        return [l1, train('sparse', epochs, 'sparse', push), *cut, finetune]
    if job.recipe == 'l1':
        return [l1, *cut, train('finetune', 2 * epochs, 'finetuned')]
    if job.recipe == 'scratch':
        return [l1, *cut, dict(type='Reinitialise'), train('scratch', 2 * epochs + 8, 'finetuned')]
    everywhere = dict(type='GlobalSparsity', strength=dict(reach=1.0))
    if job.recipe == 'slimming':
        push = train('sparse', epochs, 'sparse', everywhere)
        return [push, select('BNScale', job.keep), *cut, finetune]
    half = epochs // 2
    return [
        train('global', half, None, everywhere),
        select('BNScale', job.keep),
        train('sparse', half, 'sparse', dict(type='MaskSparsity', strength=dict(reach=20.0))),
        *cut,
        finetune,
    ]


def select(source: str, keep: float) -> dict[str, Any]:
    """Return the stage that selects masks."""
    return dict(type='SelectMask', source=dict(type=source, budget=dict(type='Macs', keep=keep)))


def train(
    name: str, epochs: int, row: str | None, regularizer: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Return a stage that trains."""
    push = {} if regularizer is None else {'regularizer': regularizer}
    return dict(type='Train', name=name, epochs=epochs, row=row, **push)
