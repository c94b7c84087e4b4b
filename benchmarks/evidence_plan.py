"""The parts of the studies of benchmarks/evidence.py: which runs are left, as study files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evidence_results import chosen

from easypruner.study.study_file import Study, read_study

ROOT = Path(__file__).resolve().parent
STUDIES = ('methods_r20', 'methods_vgg6bn', 'variants_r20', 'variants_vgg6bn')
_PART = '''"""A part of a study."""

from runpy import run_path as _run_path

_study = _run_path({file!r}, dict(grid=grid, choice=choice, tune=tune))
_chosen = {chosen!r}


def _entry(name, entry):
    chosen = _chosen.get(name)
    if chosen is None:
        return entry
    rest = {{key: value for key, value in entry.items() if key != 'tune'}}
    return {{**rest, 'options': {{**entry.get('options', {{}}), **chosen}}}}


configs = {{name: _entry(name, _study['configs'][name]) for name in {methods!r}}}
options = {{**_study['options'], **{options!r}}}
budgets = [{keep!r}]
seeds = {seeds!r}
random = scratch = False
'''
_QUICK = {
    'train_cfg.max_epochs': 4,
    'train_dataloader.dataset.indices': 256,
    'train_dataloader.dataset.variants': 2,
    'val_dataloader.dataset.indices': 250,
}
"""Options of short runs."""


_FIRST = ('masksparsity', 'slimming', 'l1', 'scratch')
"""The methods that are compared first."""
_HARDEST = (0.15,)


@dataclass(frozen=True)
class Phase:
    """A part of a study; empty lists stand for all.

    Attributes:
        study: the name of the study.
        budgets: the shares of MACs to keep.
        seeds: the seeds.
        methods: the names of the methods.
    """

    study: str
    budgets: Sequence[float] = ()
    seeds: Sequence[int] = ()
    methods: Sequence[str] = ()


@dataclass(frozen=True)
class Selection:
    """A selection of runs; empty lists stand for all.

    Attributes:
        methods: the names of the methods.
        seeds: the seeds.
        budgets: the shares of MACs to keep.
    """

    methods: Sequence[str] = ()
    seeds: Sequence[int] = ()
    budgets: Sequence[float] = ()


PHASES = (
    Phase(STUDIES[0], _HARDEST, (0, 1, 2), _FIRST),
    *(Phase(study, _HARDEST, (), methods) for methods in (_FIRST, ()) for study in STUDIES[:2]),
    *(Phase(study) for study in STUDIES[2:]),
    *(Phase(study) for study in STUDIES[:2]),
)
"""The parts of all studies, the most telling ones first."""


@dataclass(frozen=True)
class Part:
    """Runs of some methods with one budget and some seeds.

    Attributes:
        study: the name of the study.
        keep: the share of MACs to keep.
        seeds: the seeds.
        methods: the names of the methods.
        quick: whether the runs are short, and nothing is tuned.
    """

    study: str
    keep: float
    seeds: tuple[int, ...]
    methods: tuple[str, ...]
    quick: bool = False

    def text(self, known: Mapping[str, Any]) -> str:
        """Return the text of a study file. Methods are tuned if no trials have chosen for them.

        Args:
            known: the results of the study.
        """
        tuned = chosen(known)
        values = {name: tuned[name] for name in self.methods if name in tuned}
        if self.quick:
            values = {name: {} for name in self.methods}
        return _PART.format(
            file=str(ROOT / 'studies' / f'{self.study}.py'),
            chosen=values,
            methods=list(self.methods),
            options=_QUICK if self.quick else {},
            keep=self.keep,
            seeds=list(self.seeds),
        )

    def folder(self, text: str) -> str:
        """Return the name of its folder, which depends on the text of its study file."""
        return f'{self.keep:g}_{hashlib.sha256(text.encode()).hexdigest()[:10]}'


def parts(
    phase: Phase,
    known: Mapping[str, Any],
    selection: Selection = Selection(),
    quick: bool = False,
) -> Iterator[Part]:
    """Yield the parts of a phase that have not finished.

    Methods that lack the same seeds share a part. One that is yet to be tuned has its own, so that
    its values are known as soon as its trials are over.

    Args:
        phase: the phase.
        known: the results of its study.
        selection: the runs that are wanted.
        quick: whether the runs are short: two seeds of the first budget.
    """
    study, tuned = study_of(phase.study), chosen(known)
    names = [
        method.name
        for method in study.methods
        if method.name in (selection.methods or (method.name,))
        and method.name in (phase.methods or (method.name,))
    ]
    alone = {m.name for m in study.methods if m.tune and m.name not in tuned and not quick}
    wanted = [
        seed
        for seed in phase.seeds or study.seeds[: 2 if quick else None]
        if seed in (selection.seeds or (seed,))
    ]
    for keep in phase.budgets or _shares(study)[: 1 if quick else None]:
        if keep not in (selection.budgets or (keep,)):
            continue
        left: dict[tuple[Any, ...], list[str]] = {}
        for name in names:
            done = known['lines'].get(f'{name}, {keep:g}', {'seeds': {}})['seeds']
            missing = tuple(seed for seed in wanted if str(seed) not in done)
            if missing:
                left.setdefault((missing, name if name in alone else None), []).append(name)
        for (missing, _), methods in left.items():
            yield Part(phase.study, keep, missing, tuple(methods), quick)


def planned(name: str) -> int:
    """Return the number of runs of a study."""
    study = study_of(name)
    return len(study.methods) * len(study.budgets) * len(study.seeds)


def study_of(name: str) -> Study:
    """Return the study with a name."""
    return read_study(ROOT / 'studies' / f'{name}.py')


def _shares(study: Study) -> list[float]:
    return [budget['keep'] for budget in study.budgets if budget is not None]
