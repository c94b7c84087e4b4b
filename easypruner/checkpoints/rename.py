"""Rename rules: pairs of a regular expression and a replacement, for names of weights or modules.

The rules need neither torch nor MMEngine.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from easypruner.base.describe import shown
from easypruner.checkpoints.maps import MAPS
from easypruner.errors import ConfigError, EasyPrunerError, nearest

BY_STRUCTURE = 'by_structure'
"""In place of a rule: find the map by the order, shape and kind of the weights."""
ARROW = '=>'
_FORMS = (
    f"the name of a shipped map, 'REGEX{ARROW}REPLACEMENT', the path of a JSON file of pairs, "
    f'{BY_STRUCTURE!r}, or a list of such or of pairs (REGEX, REPLACEMENT)'
)


@dataclass(frozen=True)
class Rename:
    """Renames weights or modules by rules, which are applied one after the other, as re.sub does.

    Attributes:
        rules: the pairs of a regular expression and a replacement.
        label: a text for messages.
        structural: whether the rules are to be found by the structure of the weights.

    >>> Rename(((r'^layer', 'backbone.layer'),))('layer1.0.conv1')
    'backbone.layer1.0.conv1'
    """

    rules: tuple[tuple[str, str], ...] = ()
    label: str = ''
    structural: bool = False

    def __call__(self, name: str) -> str:
        for pattern, replacement in self.rules:
            name = re.sub(pattern, replacement, name)
        return name

    def apply(self, names: Iterable[str]) -> dict[str, str]:
        """Return old name -> new name.

        Raises:
            EasyPrunerError: two names become one.
        """
        renamed = {name: self(name) for name in names}
        if len({*renamed.values()}) < len(renamed):
            taken: dict[str, str] = {}
            for old, new in renamed.items():
                if taken.setdefault(new, old) != old:
                    raise EasyPrunerError(
                        f'rename={self.label} gives {taken[new]!r} and {old!r} the same name '
                        f'{new!r}; make the regular expression more specific'
                    )
        return renamed

    def idle(self, names: Iterable[str]) -> list[str]:
        """Return the regular expressions that change none of these names."""
        current, idle = list(names), []
        for pattern, replacement in self.rules:
            later = [re.sub(pattern, replacement, name) for name in current]
            if later == current:
                idle.append(pattern)
            current = later
        return idle


NO_RENAME = Rename()


def rename_of(value: Any, owner: str = 'load_checkpoint', argument: str = 'rename') -> Rename:
    """Return the rename rule that a config, the command line or a caller states.

    Args:
        value: the name of a shipped map (see :data:`easypruner.checkpoints.maps.MAPS`), such as
            ``'torchvision->mmpretrain'``; ``'REGEX=>REPLACEMENT'``; the path of a JSON file with a
            list of pairs; ``'by_structure'``; a list of such; a list of pairs; or None for no rule.
        owner: the class, function or command that takes the rule; for messages.
        argument: the name of the argument.

    Raises:
        ConfigError: the value is not a rule; the message names the nearest map.

    >>> rename_of('pycls->mmpretrain')('s1.b2.f.a_bn.weight')
    'backbone.layer1.1.bn1.weight'
    """
    if value is None:
        return NO_RENAME
    if isinstance(value, Rename):
        return value
    single = isinstance(value, str | os.PathLike)
    if not single and not isinstance(value, list | tuple):
        raise ConfigError(f'{argument}={shown(value)} of {owner}; expected {_FORMS}')
    items = [value] if single else value
    if BY_STRUCTURE in items:
        if len(items) > 1:
            raise ConfigError(
                f'{argument}={shown(value)} of {owner}; {BY_STRUCTURE!r} finds all names by '
                'itself, so leave out the other rules'
            )
        return Rename(label=repr(BY_STRUCTURE), structural=True)
    rules = [rule for item in items for rule in _rules(item, owner, argument)]
    return Rename(tuple(rules), shown(items[0] if len(items) == 1 else value))


def _rules(item: Any, owner: str, argument: str) -> list[tuple[str, str]]:
    """Return the rules of one item of a rule."""
    if isinstance(item, list | tuple) and len(item) == 2 and all(isinstance(t, str) for t in item):
        return [_checked(item[0], item[1], owner, argument)]
    if not isinstance(item, str | os.PathLike):
        raise ConfigError(f'{argument}: got {shown(item)} in {owner}; expected {_FORMS}')
    text = os.fspath(item)
    if text in MAPS:
        return list(MAPS[text])
    if ARROW in text:
        pattern, _, replacement = text.partition(ARROW)
        return [_checked(pattern.strip(), replacement.strip(), owner, argument)]
    if Path(text).suffix == '.json' or Path(text).is_file():
        return [_checked(*pair, owner, argument) for pair in _read_pairs(Path(text))]
    known = [*MAPS, BY_STRUCTURE]
    raise ConfigError(
        f'{argument}={text!r} of {owner} is not a shipped map; {nearest(text, known)}; a rule of '
        f"your own is a pair, 'REGEX{ARROW}REPLACEMENT'"
    )


def _checked(pattern: str, replacement: str, owner: str, argument: str) -> tuple[str, str]:
    """Return a pair of which both parts can be used."""
    where = f'{argument}: {pattern!r} {ARROW} {replacement!r} of {owner}'
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ConfigError(
            f'{where}: {pattern!r} is not a regular expression: {error}; '
            r"write a dot as '\.' and anchor the start of a name with '^'"
        ) from None
    try:
        # The replacement is parsed only when a name matches: an alternative always does.
        re.sub(f'(?:{pattern})|', replacement, '')
    except (re.error, IndexError) as error:
        raise ConfigError(
            f'{where}: the replacement cannot be used: {error}; the expression has '
            rf'{compiled.groups} groups; \1 is the first'
        ) from None
    return pattern, replacement


def _read_pairs(path: Path) -> list[tuple[str, str]]:
    """Read a JSON file of pairs: a list of lists, or a dict."""
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
    except FileNotFoundError:
        raise ConfigError(
            f'there is no file {str(path)!r} of rename rules; check the path'
        ) from None
    except (OSError, ValueError) as error:
        raise ConfigError(
            f'the rename rules {str(path)!r} cannot be read: {error}; expected a JSON file'
        ) from None
    pairs = list(content.items()) if isinstance(content, Mapping) else content
    is_list = isinstance(pairs, list) and pairs
    if not is_list or not all(
        isinstance(p, list | tuple) and len(p) == 2 and all(isinstance(t, str) for t in p)
        for p in pairs
    ):
        raise ConfigError(
            f'the rename rules {str(path)!r} are {shown(content)}; '
            'expected a list of pairs [REGEX, REPLACEMENT]'
        )
    return [(pattern, replacement) for pattern, replacement in pairs]
