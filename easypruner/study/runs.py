"""The runs of a study: the methods times the seeds, the budgets and the swept values."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from easypruner.errors import ConfigError
from easypruner.study.methods import Method
from easypruner.study.study_file import Study
from easypruner.study.sweeps import combinations, value_text

_LONGEST = 120
"""The most bytes of the name of a folder. File systems allow 255, and files have suffixes."""


@dataclass(frozen=True)
class StudyRun:
    """A run of a study, as what its process needs to know.

    Attributes:
        id: the name of its folder.
        method: the name of the method.
        label: the name of the result: the method, the budget and the swept values.
        config: the path or name of the config.
        recipe: the name of a recipe that replaces the stages; None keeps them.
        budget: the budget of all mask sources; None keeps those of the config.
        options: key of the config -> value, without the swept keys.
        swept: swept key -> value.
        baseline: the baseline whose stages replace those of the config, or None.
        seed: the seed.
        plugins: folders with plugins.
        held_out: whether a part of the training data is held out, to validate on it.
    """

    id: str
    method: str
    label: str
    config: str
    seed: int
    recipe: str | None = None
    budget: Mapping[str, Any] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    swept: Mapping[str, Any] = field(default_factory=dict)
    baseline: str | None = None
    plugins: tuple[str, ...] = ()
    held_out: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the run as JSON can represent it."""
        return {**asdict(self), 'plugins': list(self.plugins)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> StudyRun:
        """Return the run that :meth:`to_json` has converted."""
        return cls(**{**content, 'plugins': tuple(content['plugins'])})


def runs_of(study: Study) -> list[StudyRun]:
    """Return all runs of a study.

    Runs of one seed come after each other at a distance, so that processes which start together do
    not need the same baseline.
    """
    parts = [part for method in study.methods for part in _parts(method, study)]
    runs = [_run(*part, seed, study) for part in parts for seed in study.seeds]
    # Some file systems do not distinguish a from A.
    names = Counter(run.id.casefold() for run in runs)
    twice = {run.id for run in runs if names[run.id.casefold()] > 1}
    if twice:
        raise ConfigError(
            f'several runs of the study would have the folder {min(twice)!r}; give the methods '
            'names, and swept keys values, that differ in their letters and digits'
        )
    return runs


def _parts(
    method: Method, study: Study
) -> Iterator[tuple[Method, Mapping[str, Any] | None, dict[str, Any]]]:
    for budget in study.budgets:
        for swept in combinations(method.sweep):
            yield method, budget, swept


def _run(
    method: Method,
    budget: Mapping[str, Any] | None,
    swept: dict[str, Any],
    seed: int,
    study: Study,
) -> StudyRun:
    words = [method.name]
    if budget is not None and study.names_budgets:
        words.append(' '.join(str(value) for value in budget.values()))
    words += [f'{_short(key, swept)}={value_text(value)}' for key, value in swept.items()]
    return StudyRun(
        id=_folder_name(words, f'seed{seed}'),
        method=method.name,
        label=', '.join(words),
        config=method.config,
        seed=seed,
        recipe=method.recipe,
        budget=budget,
        options={**method.options, **method.chosen.get(budget_name(budget), {})},
        swept=swept,
        baseline=method.baseline,
        plugins=study.plugins,
        held_out=method.held_out,
    )


def budget_name(budget: Mapping[str, Any] | None) -> str:
    """Return a text that names a budget."""
    return json.dumps(budget, sort_keys=True, default=str)


def _short(key: str, swept: Mapping[str, Any]) -> str:
    """Return the last word of a swept key, or the whole key if another one ends like it."""
    last = key.rpartition('.')[2]
    others = [other for other in swept if other != key]
    return key if any(other.rpartition('.')[2] == last for other in others) else last


def _folder_name(words: Sequence[str], seed: str) -> str:
    """Return the name of the folder of a run; that of a long name ends with a hash of it."""
    name = '_'.join(filter(None, map(_slug, words)))
    if len(name.encode()) > _LONGEST:
        digest = hashlib.sha256(', '.join(words).encode()).hexdigest()[:8]
        name = f'{name.encode()[:_LONGEST].decode(errors="ignore")}-{digest}'
    return f'{name}_{seed}' if name else seed


def _slug(text: str) -> str:
    return re.sub(r'[^\w.=-]+', '-', text).strip('-.')
