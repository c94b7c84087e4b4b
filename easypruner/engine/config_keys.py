"""The keys of a config that its user wrote. Those that came from base configs are not checked."""

from __future__ import annotations

import ast
import io
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config
from mmengine.fileio import load

_PLACEHOLDER = re.compile(r'\{\{.*?\}\}')
"""What MMEngine replaces before it reads a file, such as ``{{ fileDirname }}``."""
_BASE_VARIABLE = re.compile(r'\b_base_\s*(?:\.\s*(\w+)|\[\s*[\'"](\w+)[\'"]\s*\])')
_UNCHECKED = '_unchecked_keys'
_GIVEN = '_given_keys'


@dataclass(frozen=True)
class FileKeys:
    """The top-level keys that the text of a config file speaks of.

    Attributes:
        written: the keys that it sets.
        read: the keys that its own code uses, as in ``data_root + 'train'``.
    """

    written: frozenset[str]
    read: frozenset[str]

    @classmethod
    def of(cls, file: Path) -> FileKeys:
        """Return the keys of a file that MMEngine could read."""
        text = file.read_text(encoding='utf-8')
        bases = {one or other for one, other in _BASE_VARIABLE.findall(text)}
        plain = _PLACEHOLDER.sub('None', text)
        if file.suffix != '.py':
            content = load(io.StringIO(plain), file_format=file.suffix[1:])
            return cls(frozenset(content), frozenset(bases))
        written: set[str] = set()
        read = set(bases)
        for node in ast.walk(ast.parse(plain)):
            if isinstance(node, ast.Name):
                (read if isinstance(node.ctx, ast.Load) else written).add(node.id)
            elif isinstance(node, ast.alias):
                written.add((node.asname or node.name).partition('.')[0])
        return cls(frozenset(written), frozenset(read))


NO_KEYS = FileKeys(frozenset(), frozenset())


def mark_unchecked(config: Config, own: FileKeys, options: Iterable[str]) -> None:
    """Note on a config which of its keys are not checked.

    Args:
        config: the config, with the keys of its bases.
        own: the keys of the file that the user gave.
        options: the names in ``--cfg-options``.
    """
    given = {name.partition('.')[0] for name in options}
    unchecked = (set(config) - own.written - given) | own.read
    # An attribute of a Config would be a key of it.
    object.__setattr__(config, _UNCHECKED, frozenset(unchecked))
    object.__setattr__(config, _GIVEN, frozenset(given))


def unchecked_keys(config: Config) -> frozenset[str]:
    """Return the keys of a config that came from bases, or that code of its file uses."""
    found: frozenset[str] = config.__dict__.get(_UNCHECKED, frozenset())
    return found


def given_keys(config: Config) -> frozenset[str]:
    """Return the keys of a config that options have changed after it was read."""
    found: frozenset[str] = config.__dict__.get(_GIVEN, frozenset())
    return found
