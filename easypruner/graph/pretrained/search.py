"""Finds the numbers of a config that describe a network after a cut."""

from __future__ import annotations

import copy
import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from torch import nn

from easypruner.graph.pretrained.building import (
    Difference,
    build_empty,
    compare,
    stale_numbers,
)
from easypruner.graph.pretrained.config_keys import Key, numbers_in, set_number
from easypruner.graph.recording.config_numbers import numbers_of

_MOST_BUILDS = 80
_MOST_VALUES = 3
_MOST_IN_PAIRS = 8

Numbers = Mapping[Key, int]
Proposal = tuple[Key, int]


class ConfigSearch:
    """Looks for numbers with which a class builds a network's shapes and attributes.

    No number is known to be a width: those are tried that explain widths before and after the cut,
    and those are kept that make the network that the config describes more like the real one.

    Attributes:
        base: the network that the config describes.
        built: that of the best numbers.
        start: how ``base`` differs from the real one.
        left: how ``built`` differs from it.

    Args:
        network: the network after the cut.
        config: the config that described it before.
        cut: the dotted names of attributes that cuts have set.

    Raises:
        Exception: what the class raises for the config as it is.
    """

    def __init__(self, network: Any, config: Any, cut: set[str]) -> None:
        self._network = network
        self._config = config
        self._cut = cut
        self.base = self.built = build_empty(type(network), config)
        self._numbers: dict[Key, int] = {}
        self._builds = 0
        self._idle: set[Key] = set()
        self._pins: dict[Key, int] = {}
        self._stale = 0
        self.left = self.start = compare(network, self.base, self.base, cut)

    def run(self) -> Any | None:
        """Return a config that describes the network, or None."""
        if not self.left:
            return self._config
        if any(difference.missing for difference in self.left):
            return None  # other parameters: no number changes them
        if find_uneven(self._network, self.left) and not self._has_lists():
            return None
        for proposals in self._rounds():
            while self.left and self._improve(proposals):
                pass
            if not self.left:
                return self._with(self._numbers)
        return None

    def _rounds(self) -> Iterator[Sequence[Numbers]]:
        """Yield what to try: single numbers, others instead, pairs, and those where none stands."""
        numbers = dict(numbers_in(self._config))
        proposed = _propose(self.start, numbers)
        single = [{key: value} for key, value in proposed]
        yield single
        # A number that is equal to another one may have been taken for it.
        taken = {key: number for key in self._numbers if (number := numbers.get(key)) is not None}
        instead = [{old: taken[old], **new} for old in taken for new in single if old not in new]
        yield [*instead, *single]
        pairs = itertools.combinations(proposed[:_MOST_IN_PAIRS], 2)
        yield [{a[0]: a[1], b[0]: b[1]} for a, b in pairs if a[0] != b[0]]
        wanted = dict.fromkeys(after for each in self.left for _, after in _changes(each))
        unset = [key for key, number in numbers_in(self._config) if number is None]
        yield [{key: value} for key in unset for value in wanted]

    def _improve(self, proposals: Sequence[Numbers]) -> bool:
        """Take the first proposal after which less differs, and return whether there is one."""
        for proposal in (*({key: value} for key, value in self._pins.items()), *proposals):
            idle = proposal.keys() & self._idle or proposal.items() <= self._numbers.items()
            if idle or self._builds >= _MOST_BUILDS:
                continue
            self._builds += 1
            numbers = {**self._numbers, **proposal}
            try:
                built = build_empty(type(self._network), self._with(numbers))
            except Exception:
                continue  # the class refuses these numbers
            left = compare(self._network, built, self.base, self._cut)
            if any(difference.missing for difference in left):
                continue
            stale = list(stale_numbers(self._network, built))
            if (len(left), len(stale)) < (len(self.left), self._stale):
                self._numbers, self.built = numbers, built
                self.left, self._stale = left, len(stale)
                self._pin(stale)
                return True
            if len(proposal) == 1 and [d.key for d in left] == [d.key for d in self.left]:
                self._idle |= proposal.keys()  # not a width
        return False

    def _pin(self, stale: Iterable[tuple[tuple[str, str], Any]]) -> None:
        """Note numbers that modules have, and that the config may have as well, as they are.

        If a config has no width of a head, it is computed from others, which change.
        """
        for (path, name), _ in stale:
            module = self._network.get_submodule(path)
            own = vars(module)[name]
            unset = getattr(self._config, name, None) is None
            if unset and type(own) is int and not type(module).__module__.startswith('torch.'):
                self._pins.setdefault((name,), own)

    def _has_lists(self) -> bool:
        """Return whether the config may give each layer its own width."""
        widths = {difference.built for difference in self.left if difference.dim is not None}
        return any(isinstance(k[-1], int) and n in widths for k, n in numbers_in(self._config))

    def _with(self, numbers: Numbers) -> Any:
        config = copy.deepcopy(self._config)
        for key, value in numbers.items():
            set_number(config, key, value)
        return config


def _propose(
    differences: Sequence[Difference], numbers: Mapping[Key, int | None]
) -> list[Proposal]:
    """Return numbers of the config with new values, the most likely first.

    A number n may change to m if a width that is a multiple of n becomes the same multiple of m.
    """
    changes = Counter(pair for difference in differences for pair in _changes(difference))
    votes: Counter[Proposal] = Counter()
    for key, number in numbers.items():
        for (before, after), count in changes.items() if number else ():
            assert number is not None
            times = before // number
            if before % number == 0 and after % times == 0 and after // times != number:
                votes[key, after // times] += 2 * count if times == 1 else count
    best: Counter[Key] = Counter()
    proposals = []
    for (key, value), _ in votes.most_common():
        best[key] += 1
        if best[key] <= _MOST_VALUES:
            proposals.append((key, value))
    return proposals


def _changes(difference: Difference) -> Iterator[tuple[int, int]]:
    """Yield the widths that a difference shows, as the config describes them and as they are."""
    built, wanted = numbers_of(difference.built), numbers_of(difference.wanted)
    if built and wanted and len(built) == len(wanted):
        yield from ((b, w) for b, w in zip(built, wanted, strict=True) if b != w and b and w)


def find_uneven(network: nn.Module, differences: Sequence[Difference]) -> str:
    """Return a text about two layers of a kind with different widths; '' if there are none.

    A config without a number for each layer describes them as equal.
    """
    kinds = {(_kind(d.name), d.dim, d.built) for d in differences if d.dim is not None}
    changed = {(d.name, d.dim): d.built for d in differences}
    firsts: dict[tuple[str, int, int], tuple[str, int]] = {}
    for name, tensor in network.named_parameters():
        for dim, size in enumerate(tensor.shape):
            kind = _kind(name), dim, changed.get((name, dim), size)
            other, width = firsts.setdefault(kind, (name, size)) if kind in kinds else (name, size)
            if width != size:
                return f'dimension {dim} of {other!r} is {width} and that of {name!r} is {size}'
    return ''


def _kind(name: str) -> str:
    return re.sub(r'(?<![^.])\d+(?![^.])', '#', name)


def explain(network: nn.Module, left: Sequence[Difference]) -> str:
    """Return why no config describes a network."""
    name = type(network).__name__
    first = left[0]
    uneven = '' if first.missing else find_uneven(network, left)
    if uneven:
        return f'{uneven}, and the config has one number for both; uniform=True keeps them equal'
    if first.missing:
        return f'{name} has other parameters than its config describes, such as {first.name!r}'
    what = f'dimension {first.dim} of {first.name!r}' if first.dim is not None else first.name
    built, wanted = (
        tuple(value.shape) if hasattr(value, 'shape') else value
        for value in (first.built, first.wanted)
    )
    if built == wanted:
        return f'no config of {name} gives {what} its values after the cut'
    return f'{what} is {wanted} after the cut, where the nearest config of {name} makes {built}'
