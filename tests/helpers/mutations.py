"""Mutations of nested values, such as configs and records."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from random import Random
from typing import Any

Path = tuple[Any, ...]

SMALL: list[Any] = [None, False, True, 0, -1, 1, 2, 0.5, -0.5, '', 'text', [], {}, (), [[]], [None]]
EXTREME: list[Any] = [
    math.nan, math.inf, -math.inf, 1e308, 1e-320, 2**31, 2**63, 10**7, 10**30, -(10**30), 3_000_000,
    '١٢', '²', '\x00', '\ud800', 'a/../b', '..', "quote'\"\\", 'x' * 300, 'x' * 5000, 'ein Wört ✂',
    [1, [2, [3, [4]]]], [{}], {'type': None}, {'type': 'Nothing'}, {'type': 5}, {'type': []},
    {1: 2}, {'type': 'SGD'}, [{'type': 'Train'}], [1, 2, 3], {'a': {'b': {'c': 1}}},
]  # fmt: skip


def paths_of(value: Any, path: Path = ()) -> Iterator[Path]:
    """Yield the path of every value inside dicts and lists."""
    if path:
        yield path
    items: Any = ()
    if isinstance(value, Mapping):
        items = value.items()
    elif isinstance(value, list | tuple):
        items = enumerate(value)
    for key, item in items:
        yield from paths_of(item, (*path, key))


def mutated(random: Random, content: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return a description of one or two mutations of a value, and a mutated copy."""
    changed, done = copy.deepcopy(content), []
    for _ in range(random.choice([1, 1, 1, 2])):
        path = random.choice(list(paths_of(changed)))
        inner = changed
        for key in path[:-1]:
            inner = inner[key]
        done.append(_mutate(random, inner, path))
    return '; '.join(done), changed


def _mutate(random: Random, inner: Any, path: Path) -> str:
    """Change a dict or list at the last key of a path; return what was done."""
    key, where = path[-1], '.'.join(map(str, path))
    if isinstance(inner, tuple):
        return f'{where} stays'
    kind = random.choice(['set'] * 7 + ['delete', 'repeat', 'rename'])
    if kind == 'set':
        inner[key] = copy.deepcopy(random.choice(SMALL + EXTREME))
        return f'{where} = {str(ascii(inner[key]))[:60]}'
    if kind == 'delete':
        del inner[key]
        return f'without {where}'
    if isinstance(inner, list):
        inner.insert(key, copy.deepcopy(inner[key]))
        return f'{where} twice'
    inner[random.choice([f'{key}s', 'type', 'name', 'zoo'])] = copy.deepcopy(inner[key])
    return f'{where} under a second key'


def python_text(content: Mapping[str, Any]) -> str:
    """Return a config file with a content, also with numbers that are not finite."""
    return '\n'.join(f'{key} = {_literal(value)}' for key, value in content.items()) + '\n'


def _literal(value: Any) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return f"float('{value}')"
    if isinstance(value, Mapping):
        return '{' + ', '.join(f'{k!r}: {_literal(v)}' for k, v in value.items()) + '}'
    if isinstance(value, list):
        return '[' + ', '.join(map(_literal, value)) + ']'
    if isinstance(value, tuple):
        return '(' + ''.join(f'{_literal(item)}, ' for item in value) + ')'
    return repr(value) if not isinstance(value, str) else ascii(value)
