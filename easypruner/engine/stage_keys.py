"""Keys of stages: a stage in a key of a config is named by its number or its name."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from easypruner.errors import ConfigError, nearest

_STAGES = 'stages.'


def stage_names(stages: Any) -> list[str]:
    """Return the name of each stage of a config; '' for what is not a stage."""
    listed = stages if isinstance(stages, list | tuple) else ()
    return [_name_of(stage) if isinstance(stage, Mapping) else '' for stage in listed]


def _name_of(stage: Mapping[str, Any]) -> str:
    """Return the name of a stage, which it has from its type if the config gives none.

    >>> _name_of({'type': 'SelectMask'})
    'select_mask'
    """
    default = re.sub('(?<!^)(?=[A-Z])', '_', str(stage.get('type', ''))).lower()
    return str(stage.get('name') or default)


def numbered(key: str, names: Sequence[str]) -> str:
    """Return a key with the number of a stage in place of its name.

    Args:
        key: a key of a config, such as ``stages.finetune.epochs``.
        names: the name of each stage.

    Raises:
        ConfigError: there is no such stage.

    >>> numbered('stages.finetune.epochs', ['baseline', 'finetune'])
    'stages.1.epochs'
    """
    if not key.startswith(_STAGES):
        return key
    name, dot, rest = key.removeprefix(_STAGES).partition('.')
    if name.isdecimal():
        if int(name) >= len(names):
            raise ConfigError(f'{key}: there is no stage {name}; {_listed(names)}')
        return key
    if name not in names:
        hint = nearest(name, filter(None, names))
        raise ConfigError(f'{key}: there is no stage {name!r}; {hint}; or give its number')
    return f'{_STAGES}{names.index(name)}{dot}{rest}'


def _listed(names: Sequence[str]) -> str:
    if not names:
        return 'the config has no stages'
    return 'the stages are ' + ', '.join(f'{number} {name}' for number, name in enumerate(names))
