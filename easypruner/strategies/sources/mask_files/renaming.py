"""New names for the layers of a file of masks, by rules for whole parts of a name."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from easypruner.errors import ConfigError, MaskError


def new_names(names: Collection[str], rules: Mapping[str, str]) -> dict[str, str]:
    r"""Return old name -> new name.

    Args:
        names: the names.
        rules: regular expression -> replacement, which may refer to its groups. Each rule replaces
            whole parts of a name between dots, wherever it matches. The rules are applied one
            after the other. An empty replacement removes the parts.

    Raises:
        ConfigError: a rule is not a regular expression.
        MaskError: two names become one.

    >>> new_names(['module.s1.a_bn'], {'module': '', r's(\d)': r'layer\1'})
    {'module.s1.a_bn': 'layer1.a_bn'}
    """
    renamed = {name: name for name in names}
    for pattern, replacement in rules.items():
        renamed = {old: _replaced(new, pattern, replacement) for old, new in renamed.items()}
    taken: dict[str, str] = {}
    for old, new in renamed.items():
        if taken.setdefault(new, old) != old:
            raise MaskError(f'rename turns both {taken[new]!r} and {old!r} into {new!r}')
    return renamed


def _replaced(name: str, pattern: str, replacement: str) -> str:
    """Return a name after one rule."""
    try:
        new = re.sub(rf'(?<![^.])(?:{pattern})(?![^.])', replacement, name)
    except (re.error, IndexError) as error:
        raise ConfigError(f'rename[{pattern!r}] is not a regular expression: {error}') from error
    return '.'.join(part for part in new.split('.') if part)
