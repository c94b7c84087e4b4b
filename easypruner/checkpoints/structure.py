"""Finds the map from the names of one state dict to those of another by their structure.

Both state dicts list their weights in the order in which the network registers them. A map keeps
this order, the shapes and the kinds of weights. It is only proposed if no other map does so, and if
the names do not contradict it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from easypruner.checkpoints.rename import Rename

_KINDS = frozenset({'weight', 'bias', 'running_mean', 'running_var'})
_COUNTER = 'num_batches_tracked'
_MARK = '!'

Signature: TypeAlias = tuple[str, tuple[int, ...]]
Weights: TypeAlias = Mapping[str, Any]


def structural_map(given: Weights, own: Weights) -> dict[str, str] | None:
    """Return name in ``given`` -> name in ``own``, or None if there is not exactly one map.

    One of the two may have more weights than the other, or the last module may have another number
    of outputs. Counters of batch norms follow their modules.

    Args:
        given: the state dict of a checkpoint, in order.
        own: the state dict of a model, in order.
    """
    theirs, ours = _sequence(given), _sequence(own)
    found = _embedding(theirs, ours)
    if found is None and len(theirs) == len(ours):
        found = _without_last_module(theirs, ours)
    if not found or not _is_by_modules(found) or _contradicted(found, given, own):
        return None
    return {**found, **_counters(found, given, own)}


def _sequence(weights: Weights) -> list[tuple[str, Signature]]:
    return [
        (name, (_kind(name), tuple(tensor.shape)))
        for name, tensor in weights.items()
        if not name.endswith(_COUNTER) and hasattr(tensor, 'shape')
    ]


def _kind(name: str) -> str:
    last = name.rpartition('.')[2]
    return last if last in _KINDS else 'other'


def _embedding(
    theirs: Sequence[tuple[str, Signature]], ours: Sequence[tuple[str, Signature]]
) -> dict[str, str] | None:
    """Return the only map of the shorter sequence into the longer one that keeps the order."""
    swapped = len(theirs) > len(ours)
    short, long = (ours, theirs) if swapped else (theirs, ours)
    first = _greedy([s for _, s in short], [s for _, s in long])
    last = _greedy([s for _, s in reversed(short)], [s for _, s in reversed(long)])
    if first is None or last is None:
        return None
    # The earliest and the latest map are the same if and only if there is no other one.
    if first != [len(long) - 1 - at for at in reversed(last)]:
        return None
    pairs = [(name, long[at][0]) for (name, _), at in zip(short, first, strict=True)]
    return {b: a for a, b in pairs} if swapped else dict(pairs)


def _greedy(short: Sequence[Signature], long: Sequence[Signature]) -> list[int] | None:
    """Return the earliest position in ``long`` of each item of ``short``, in order."""
    found, at = [], 0
    for signature in short:
        while at < len(long) and long[at] != signature:
            at += 1
        if at == len(long):
            return None
        found.append(at)
        at += 1
    return found


def _without_last_module(
    theirs: list[tuple[str, Signature]], ours: list[tuple[str, Signature]]
) -> dict[str, str] | None:
    """Return the map if only the last modules differ, in the number of their outputs."""
    a, b = _last_module(theirs), _last_module(ours)
    alike = [(kind, shape[1:]) for _, (kind, shape) in a] == [
        (kind, shape[1:]) for _, (kind, shape) in b
    ]
    if not alike or len(a) == len(theirs):
        return None
    found = _embedding(theirs[: -len(a)], ours[: -len(b)])
    if found is None:
        return None
    return {**found, **{name: other for (name, _), (other, _) in zip(a, b, strict=True)}}


def _last_module(weights: list[tuple[str, Signature]]) -> list[tuple[str, Signature]]:
    module = _module(weights[-1][0]) if weights else ''
    return [entry for entry in weights if _module(entry[0]) == module]


def _module(name: str) -> str:
    return name.rpartition('.')[0]


def _is_by_modules(found: Mapping[str, str]) -> bool:
    """Return whether the usual weights of a module go to one module, and no other ones do."""
    pairs = {(_module(a), _module(b)) for a, b in found.items() if _kind(a) in _KINDS}
    return len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})


def _contradicted(found: Mapping[str, str], given: Weights, own: Weights) -> bool:
    """Return whether names occur on both sides, but the map exchanges them.

    An example is a module with the children (query, key) in one network and (key, query) in the
    other, of the same shapes. A shift such as 1 -> 0, 2 -> 1 is none.
    """
    parts: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    for a, b in found.items():
        for parent_a, child_a, parent_b, child_b in _levels(a, b):
            parts[parent_a, parent_b].setdefault(child_a, child_b)
    return any(_exchanges(children) for children in parts.values())


def _levels(a: str, b: str) -> Iterator[tuple[str, str, str, str]]:
    """Yield the parents and children of two names at each level, counted from the end."""
    one, two = a.split('.'), b.split('.')
    for up in range(1, min(len(one), len(two)) + 1):
        yield '.'.join(one[:-up]), one[-up], '.'.join(two[:-up]), two[-up]


def _exchanges(children: Mapping[str, str]) -> bool:
    common = {*children} & {*children.values()}
    if all(children[name] == name for name in common):
        return False
    pairs = [(_number(a), _number(b)) for a, b in children.items()]
    stems = {stem for pair in pairs for stem, _ in pair}
    sides = list(zip(*pairs, strict=True))
    return len(stems) > 1 or any(list(side) != sorted(side) for side in sides)


def _number(name: str) -> tuple[str, int]:
    """Split a name into its stem and its number, which is -1 if there is none."""
    stem = name.rstrip('0123456789')
    return stem, int(name[len(stem) :] or -1)


def _counters(found: Mapping[str, str], given: Weights, own: Weights) -> dict[str, str]:
    modules = {_module(a): _module(b) for a, b in found.items()}
    counters = {}
    for name in given:
        if name.endswith(_COUNTER) and _module(name) in modules:
            target = f'{modules[_module(name)]}.{_COUNTER}'.lstrip('.')
            if target in own:
                counters[name] = target
    return counters


def as_rename(found: Mapping[str, str], names: Sequence[str]) -> Rename:
    """Return few rename rules that rename exactly as a map does.

    Args:
        found: the map.
        names: all names of the checkpoint; those that the map does not have keep their names.
    """
    wanted = {name: found.get(name, name) for name in names}
    rules = _joined(list(_rules(wanted, '')))
    if not all(Rename(rules)(old) == new for old, new in wanted.items()):
        # A rule would rename again what an earlier one has made; a mark in front prevents that.
        marked = [(pattern, _MARK + replacement) for pattern, replacement in rules]
        rules = (*marked, (f'^{_MARK}', ''))
    return Rename(rules, repr(list(rules)))


def _rules(wanted: Mapping[str, str], prefix: str) -> Iterator[tuple[str, str]]:
    """Yield rules for all names that start with a prefix, which ends with a dot if it has any."""
    replacements = {_replacement(old, new, prefix) for old, new in wanted.items()}
    if len(replacements) == 1 and None not in replacements:
        (replacement,) = replacements
        if replacement != prefix:
            yield f'^{re.escape(prefix)}', str(replacement)
        return
    children: dict[str, dict[str, str]] = defaultdict(dict)
    for old, new in wanted.items():
        part, dot, _ = old[len(prefix) :].partition('.')
        children[f'{prefix}{part}{dot}'][old] = new
    for name, inner in children.items():
        if name in inner:
            if name != inner[name]:
                yield f'^{re.escape(name)}$', inner[name]
        else:
            yield from _rules(inner, name)


def _replacement(old: str, new: str, prefix: str) -> str | None:
    """Return what replaces the prefix if the rest of a name stays; None if the rest changes."""
    rest = old[len(prefix) :]
    if not new.endswith(rest):
        return None
    start = new[: len(new) - len(rest)]
    return start if not start or start.endswith('.') else None


def _joined(rules: list[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """Join the rules that only put the same text in front of names."""
    added: dict[str, list[str]] = defaultdict(list)
    rest = []
    for pattern, replacement in rules:
        name = re.sub(r'\\(.)', r'\1', pattern[1:])
        if pattern != '^' and name.endswith('.') and replacement.endswith(name):
            added[replacement[: -len(name)]].append(pattern[1:-2])
        else:
            rest.append((pattern, replacement))
    joined = [(rf'^({"|".join(names)})\.', rf'{text}\1.') for text, names in added.items()]
    return (*joined, *rest)
