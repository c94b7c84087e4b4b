"""The parts of the studies of benchmarks/evidence.py: which runs are left, as study files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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


@dataclass(frozen=True)
class Phase:
    """A part of a study; empty lists stand for all.

    Attributes:
        study: the name of the study.
        budgets: the shares of MACs to keep.
        seeds: the seeds.
    """

    study: str
    budgets: Sequence[float] = ()
    seeds: Sequence[int] = ()


PHASES = (
    *(Phase(study, (0.15,), seeds) for study in STUDIES[:2] for seeds in ((0,), ())),
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

    def text(self, chosen: Mapping[str, Mapping[str, Any]]) -> str:
        """Return the text of a study file.

        Args:
            chosen: method -> the values of keys that its trials have chosen. Methods that are
                not in it are tuned.
        """
        values = {name: dict(chosen[name]) for name in self.methods if name in chosen}
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
    lines: Mapping[str, Any],
    only: Sequence[str] = (),
    seeds: Sequence[int] = (),
    quick: bool = False,
) -> Iterator[Part]:
    """Yield the parts of a phase that have not finished; methods with the same seeds share one.

    Args:
        phase: the phase.
        lines: the lines of the results of its study.
        only: names of methods; empty for all.
        seeds: seeds; empty for all.
        quick: whether the runs are short: two seeds of the first budget.
    """
    study = study_of(phase.study)
    wanted = tuple(phase.seeds or study.seeds[: 2 if quick else None])
    budgets = _shares(study)[: 1 if quick else None]
    for keep in phase.budgets or budgets:
        left: dict[tuple[int, ...], list[str]] = {}
        for method in study.methods:
            done = lines.get(f'{method.name}, {keep:g}', {'seeds': {}})['seeds']
            missing = tuple(
                n for n in wanted if str(n) not in done and (not seeds or n in seeds)
            )  # fmt: skip
            if missing and (not only or method.name in only):
                left.setdefault(missing, []).append(method.name)
        for missing, methods in left.items():
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
