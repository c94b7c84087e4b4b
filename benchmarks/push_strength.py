"""Which strength is enough: runs over a grid of strengths, with the pull of the loss in each."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from push_recipes import BASES, EPOCHS, ONE_GROUP, baseline_of, optimizer_keys, select, train
from push_runs import Network, accuracies, run

from easypruner.pipeline.stages.train import PUSH

_SGD = (0.01, 0.02, 0.04, 0.08, 0.16)
_STRENGTHS = {
    ('digits', 'SGD'): _SGD,
    ('digits', 'AdamW'): (4.0, 8.0, 9.0, 16.0),
    ('mnist', 'SGD'): _SGD,
    ('mnist', 'AdamW'): (0.2, 0.4, 0.8, 1.6),
}
_FORMS = {'SGD': ('proximal', 'gradient'), 'AdamW': ('proximal',)}
_KEEP = {'digits': 0.3, 'mnist': 0.15}
_UP = 0.01
"""The magnitude above which a scale counts as left."""


@dataclass(frozen=True)
class Trial:
    """A run with a strength.

    Attributes:
        data: ``'digits'`` or ``'mnist'``.
        optimizer: ``'SGD'`` or ``'AdamW'``.
        form: the form of the penalty.
        strength: its strength.
        seed: the seed of the run.
    """

    data: str
    optimizer: str
    form: str
    strength: float
    seed: int

    @property
    def name(self) -> str:
        """A name that no other trial has."""
        return f'{self.data}_{self.optimizer}_{self.form}_{self.strength:g}_{self.seed}'


def trials_of(seeds: Sequence[int]) -> list[Trial]:
    """Return all trials."""
    return [
        Trial(data, optimizer, form, strength, seed)
        for (data, optimizer), strengths in _STRENGTHS.items()
        for form in _FORMS[optimizer]
        for strength in strengths
        for seed in seeds
    ]


def outcome_of(trial: Trial, folder: Path) -> dict[str, Any]:
    """Run a trial unless it has finished before; return what was measured and what is left."""
    weights = baseline_of(trial.data, trial.optimizer, trial.seed, folder)
    push = dict(type='MaskSparsity', strength=trial.strength, apply=trial.form)
    config = {
        'load_from': str(weights),
        'graph': dict(limits={'*': dict(max_removed=ONE_GROUP)}),
        'stages': [
            select('L1Norm', _KEEP[trial.data]),
            train('sparse', EPOCHS[trial.data], 'sparse', push),
            dict(type='Prune'),
            dict(type='Report'),
        ],
        **optimizer_keys(trial.data, trial.optimizer),
    }
    done = run(config, BASES[trial.data], folder / f'strength_{trial.name}', trial.seed)
    scales = Network.of(done, BASES[trial.data]).removed('weight')
    measured = json.loads((next(done.glob('*_sparse')) / PUSH).read_text(encoding='utf-8'))
    rows = accuracies(done)
    return {
        'strength': trial.strength,
        'alone': measured['alone'],
        'pulls': [entry['pull'] for entry in measured['pulls']],
        'left': int((scales > _UP).sum()),
        'removed': len(scales),
        'accuracy': [rows['sparse'], rows['pruned']],
    }
