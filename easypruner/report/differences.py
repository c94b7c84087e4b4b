"""Differences between the methods of a comparison and a reference, in accuracy at equal seeds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from easypruner.errors import EasyPrunerError, nearest
from easypruner.report.comparison import Comparison, Line
from easypruner.report.result import RunResult
from easypruner.report.statistics import (
    FEWEST,
    LEVEL,
    Paired,
    compare_paired,
    corrected,
    resolution,
)
from easypruner.report.text import format_change, format_numbers, plural

QUANTITIES: dict[str, Callable[[RunResult], float | None]] = {
    'final': lambda run: run.final.accuracy,
    'calibrated': lambda run: run.calibrated.accuracy if run.calibrated else None,
}
"""The accuracies that are compared: at the end, and after the cut with recalibrated batch norms."""


@dataclass(frozen=True)
class Difference:
    """The difference of a method from the reference of its group.

    Attributes:
        line: the method.
        reference: the method that it is compared with.
        quantity: the name of the accuracy.
        paired: the difference over the common seeds.
    """

    line: Line
    reference: Line
    quantity: str
    paired: Paired

    def cells(self) -> tuple[str, ...]:
        """Return the cells of a table; see ``COLUMNS``."""
        pair = self.paired
        known = pair.low is not None and pair.high is not None
        return (
            self.line.name,
            self.reference.name,
            format_numbers(pair.seeds) or '-',
            format_change(pair.mean) if pair.seeds else '-',
            f'{format_change(pair.low or 0)} to {format_change(pair.high or 0)}' if known else '-',
            _p_text(pair.corrected),
            _p_text(pair.exact),
            pair.verdict,
        )

    def record(self) -> dict[str, Any]:
        """Return the difference for comparison.json."""
        pair = dataclasses.asdict(self.paired)
        return {
            'line': self.line.name,
            'reference': self.reference.name,
            'group': self.line.group,
            'quantity': self.quantity,
            **pair,
            'seeds': list(self.paired.seeds),
            'verdict': self.paired.verdict,
        }


COLUMNS = ('method', 'against', 'seeds', 'points', f'{LEVEL:.0%} interval', 'p (Holm)', 'p (exact)',
           'verdict')  # fmt: skip


def find_differences(
    comparison: Comparison, quantity: str = 'final', reference: str | None = None
) -> list[Difference]:
    """Compare each method with the reference of its group, which is the first one by default.

    Args:
        comparison: the compared runs.
        quantity: a name in ``QUANTITIES``.
        reference: the name of a method, which is the reference in each group that has it.

    Raises:
        EasyPrunerError: no method has the name ``reference``.
    """
    if reference is not None and not any(x.is_called(reference) for x in comparison.lines):
        known = dict.fromkeys(line.method or line.name for line in comparison.lines)
        raise EasyPrunerError(f'no method is called {reference!r}; {nearest(reference, known)}')
    groups: dict[str, list[Line]] = {}
    for line in comparison.lines:
        groups.setdefault(line.group, []).append(line)
    pairs: list[tuple[Line, Line]] = []
    for lines in groups.values():
        chosen = choose_reference(lines, reference)
        pairs += [(line, chosen) for line in lines if line is not chosen]
    value = QUANTITIES[quantity]
    step = resolution(row.accuracy for run in comparison.runs for row in run.rows)
    compared = [
        compare_paired(line.by_seed(value), ref.by_seed(value), step) for line, ref in pairs
    ]
    return [
        Difference(line, ref, quantity, paired)
        for (line, ref), paired in zip(pairs, corrected(compared), strict=True)
        if paired.seeds or quantity == 'final'
    ]


def choose_reference(lines: Sequence[Line], reference: str | None) -> Line:
    """Return the line that is called so, or else the first one."""
    named = [line for line in lines if reference is not None and line.is_called(reference)]
    return (named or lines)[0]


def explain(differences: list[Difference]) -> list[str]:
    """Return sentences that say how to read a table of differences."""
    if not differences:
        return []
    family = max(entry.paired.family for entry in differences)
    paired = (
        "Differences are paired by seed. Intervals are those of Student's t, without correction; "
        f"the verdict is that of the t-test at {1 - LEVEL:.0%} after Holm's correction for "
        f'{plural(family, "comparison")}.'
    )
    exact = (
        'The exact test flips the signs of the differences, and needs no normal distribution. With '
        'n seeds it cannot go under 2 to the power of 1 - n, as 0.25 with 3 seeds and 0.0625 '
        'with 5.'
    )
    lines = [paired, exact]
    few = [entry for entry in differences if len(entry.paired.seeds) < FEWEST]
    if few:
        names = ', '.join(dict.fromkeys(entry.line.name for entry in few))
        lines.append(f'A verdict needs {FEWEST} common seeds; there are fewer for: {names}.')
    return lines


def _p_text(value: float | None) -> str:
    if value is None:
        return '-'
    return '< 0.001' if value < 0.001 else f'{value:.3f}'
