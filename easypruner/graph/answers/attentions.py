"""Attentions: how many heads, of which width, each of them has, and which of the two can go."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from easypruner.graph.coupling.axes import SplitKey
from easypruner.graph.coupling.splits import Splits


@dataclass
class Attention:
    """An attention of a network: the products of its queries, keys and values.

    Attributes:
        splits: the splits of its queries, keys and values into heads.
        heads: the number of heads that could go: of keys, if several of queries share one.
        width: the width of a head.
        loses_heads: whether it loses heads. Else it loses width of every head.
    """

    splits: set[SplitKey] = field(default_factory=set)
    heads: int = 1
    width: int = 0
    loses_heads: bool = False

    def add(self, other: Attention) -> None:
        """Add another product of the same attention."""
        counts = [count for count in (self.heads, other.heads) if count > 1]
        self.heads = min(counts, default=1)
        self.width = max(self.width, other.width)
        self.splits |= other.splits
        self.loses_heads |= other.loses_heads


def find_attentions(splits: Splits) -> list[Attention]:
    """Return the attentions that have several heads. Products that share a split are of one."""
    found: list[Attention] = []
    for product in _products(splits):
        same = [each for each in found if each.splits & product.splits]
        found = [each for each in found if not each.splits & product.splits]
        for each in same:
            product.add(each)
        found.append(product)
    return [each for each in found if each.heads > 1]


def _products(splits: Splits) -> Iterator[Attention]:
    for sides in splits.attentions:
        parts = [part for heads, widths in sides for part, _ in (*heads, *widths)]
        if parts:
            heads = [math.prod(_sizes(heads)) for heads, _ in sides]
            yield Attention(
                splits={part.split for part in parts},
                heads=min((count for count in heads if count > 1), default=1),
                width=max((size for _, widths in sides for size in _sizes(widths)), default=0),
                loses_heads=any(
                    splits.chosen.get(part.split) == part.number
                    for heads, _ in sides
                    for part, _ in heads
                ),
            )


def _sizes(parts: Iterable[tuple[object, int]]) -> list[int]:
    return [size for _, size in parts]
