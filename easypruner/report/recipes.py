"""The recipe of a run as flat settings, and what distinguishes two recipes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from easypruner.base.json_fields import read_json
from easypruner.errors import EasyPrunerError

_RUN = 'run.json'
PARTS = {
    'model': ('model', 'data_preprocessor'),
    'data': ('train_dataloader', 'val_dataloader', 'val_evaluator'),
    'graph': ('graph',),
    'schedule': ('optim_wrapper', 'param_scheduler', 'train_cfg'),
}
"""The parts of a config that comparable runs have in common, and their keys."""
LENGTH = ('max_epochs', 'val_interval', 'val_begin', 'dynamic_intervals')
"""The keys of train_cfg that belong to no part: stages have epochs of their own."""
_LEFT_OUT = ('seed', 'randomness', 'work_dir', 'launcher', 'resume')


@dataclass(frozen=True)
class Change:
    """A setting in which a recipe differs from another one.

    Attributes:
        key: its path; a stage is named in it, as in ``stages[finetune].lr``.
        before: the value of the other recipe as text; '' if it has none.
        after: the value of this recipe.
    """

    key: str
    before: str
    after: str


def read_recipe(work_dir: Path) -> dict[str, str]:
    """Return the settings of a run, from its run.json: path -> value; empty if it has none."""
    path = work_dir / _RUN
    if not path.is_file():
        return {}
    try:
        config = read_json(path)['config'].value
    except EasyPrunerError:
        return {}
    if not isinstance(config, Mapping):
        return {}
    kept = {key: value for key, value in config.items() if key not in _LEFT_OUT}
    return dict(_flat(kept, ''))


def recipe_changes(recipe: Mapping[str, str], other: Mapping[str, str]) -> tuple[Change, ...]:
    """Return the settings in which ``recipe`` differs from ``other``, in the order of both."""
    keys = dict.fromkeys((*other, *recipe))
    return tuple(
        Change(key, other.get(key, ''), recipe.get(key, ''))
        for key in keys
        if other.get(key) != recipe.get(key)
    )


def settings_of_part(recipe: Mapping[str, str], part: str) -> dict[str, str]:
    """Return the settings of a recipe that belong to a part: path -> value.

    Args:
        recipe: the settings of a run.
        part: a name in :data:`PARTS`; another one has no settings.
    """
    known = PARTS.get(part, ())
    free = {f'train_cfg.{key}' for key in LENGTH}
    return {
        key: value
        for key, value in recipe.items()
        if re.split(r'[.\[]', key)[0] in known and key not in free
    }


def _flat(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _flat(item, f'{path}.{key}' if path else str(key))
    elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        for name, item in zip(_names(value), value, strict=True):
            yield from _flat(item, f'{path}[{name}]')
    else:
        yield path, repr(value)


def _names(items: list[Any]) -> Iterator[str]:
    """Yield a name for each item of a list, which does not depend on what stands before it."""
    seen: Counter[str] = Counter()
    for item in items:
        known = item if isinstance(item, Mapping) else {}
        name = str(known.get('name') or known.get('type') or 'item')
        seen[name] += 1
        yield name if seen[name] == 1 else f'{name} {seen[name]}'
