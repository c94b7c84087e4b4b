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
_EPOCHS = {'digits': 6, 'mnist': 12}
"""Data -> the number of epochs of the sparsity stage, and of fine-tuning."""
_BASES = {'digits': DIGITS, 'mnist': MNIST}
_ADAMW = {'digits': 2e-3, 'mnist': 1e-2}
_ONE_GROUP = 0.7
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
        for data in _BASES
        for optimizer in ('SGD', 'AdamW')
        for keep in SHARES
        for seed in seeds
    ]
    return jobs + [
        Job('mnist', 'SGD', rival, SHARES[-1], seed) for rival in RIVALS for seed in seeds
    ]


def result_of(job: Job, folder: Path) -> dict[str, float]:
    """Run a job unless it has finished before; return row -> accuracy in percent."""
    trained = _run(job, folder / f'{job.data}_{job.optimizer}_baseline_{job.seed}', [_baseline(8)])
    weights = next(trained.glob('*_baseline')) / 'weights.pth'
    load = dict(type='Evaluate', checkpoint=str(weights.resolve()), row='baseline')
    return accuracies(_run(job, folder / job.name, [load, *_stages(job)]))


def _run(job: Job, folder: Path, stages: Stages) -> Path:
    config: dict[str, Any] = {
        'graph': dict(limits={'*': dict(max_removed=_ONE_GROUP)}),
        'stages': [*stages, dict(type='Report')],
    }
    if job.optimizer == 'AdamW':
        adamw = dict(type='AdamW', lr=_ADAMW[job.data], weight_decay=0.05, _delete_=True)
        config['optim_wrapper'] = dict(optimizer=adamw)
    return run(config, _BASES[job.data], folder, job.seed)


def _baseline(epochs: int) -> dict[str, Any]:
    return dict(type='Train', name='baseline', epochs=epochs, row='baseline')


def _stages(job: Job) -> Stages:
    epochs = _EPOCHS[job.data]
    cut = [dict(type='Prune'), dict(type='Calibrate')]
    l1, finetune = _select('L1Norm', job.keep), _train('finetune', epochs, 'finetuned')
    if job.recipe == 'until' or job.recipe in STRENGTHS:
        fixed = job.recipe in STRENGTHS
        strength = dict(reach=STRENGTHS[job.recipe]) if fixed else dict(until=1e-3)
        push = dict(type='MaskSparsity', strength=strength, apply='proximal')
        return [l1, _train('sparse', epochs, 'sparse', push), *cut, finetune]
    if job.recipe == 'l1':
        return [l1, *cut, _train('finetune', 2 * epochs, 'finetuned')]
    if job.recipe == 'scratch':
        return [l1, *cut, dict(type='Reinitialise'), _train('scratch', 2 * epochs + 8, 'finetuned')]
    everywhere = dict(type='GlobalSparsity', strength=dict(reach=1.0))
    if job.recipe == 'slimming':
        push = _train('sparse', epochs, 'sparse', everywhere)
        return [push, _select('BNScale', job.keep), *cut, finetune]
    half = epochs // 2
    return [
        _train('global', half, None, everywhere),
        _select('BNScale', job.keep),
        _train('sparse', half, 'sparse', dict(type='MaskSparsity', strength=dict(reach=20.0))),
        *cut,
        finetune,
    ]


def _select(source: str, keep: float) -> dict[str, Any]:
    return dict(type='SelectMask', source=dict(type=source, budget=dict(type='Macs', keep=keep)))


def _train(
    name: str, epochs: int, row: str | None, regularizer: dict[str, Any] | None = None
) -> dict[str, Any]:
    push = {} if regularizer is None else {'regularizer': regularizer}
    return dict(type='Train', name=name, epochs=epochs, row=row, **push)
