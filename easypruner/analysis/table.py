"""An analysis as tables, and as values for JSON."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from easypruner.analysis.summary import Analysis, GroupRow
from easypruner.graph import ChannelGraph, Frozen
from easypruner.report.text import format_count, format_share, make_table, print_lines


def print_analysis(
    console: Console, title: str, found: Analysis, every_frozen: Sequence[Frozen] | None = None
) -> None:
    """Print the total cost, the groups and the frozen channels.

    Args:
        console: the console to print to.
        title: the name of the network.
        found: the analysis.
        every_frozen: the frozen dimensions, to list each of them; None to list reasons.
    """
    print_lines(console, title, _totals(found))
    console.print(_shares_table(found))
    console.print(_groups_table(found))
    if every_frozen is None:
        by_reason = (
            (row.reason, row.example or 'the model itself', str(row.dims), str(row.channels))
            for row in found.frozen
        )
        table = make_table(
            'Frozen', ('reason', 'for example', 'dims', 'channels'), by_reason, left=2
        )
    else:
        one_by_one = ((e.param, e.reason, str(e.dim), str(e.channels)) for e in every_frozen)
        table = make_table('Frozen', ('parameter', 'reason', 'dim', 'channels'), one_by_one, left=2)
    console.print(table)
    if found.notes:
        print_lines(console, 'Notes', found.notes)


def _totals(found: Analysis) -> Iterator[str]:
    cost = found.cost
    yield f'MACs         {format_count(cost.macs)}'
    yield (
        f'params       {format_count(cost.params)}, '
        f'{format_share(found.prunable_params, cost.params)} of them with a prunable dimension'
    )
    yield f'activations  {format_count(cost.activations)} elements'
    yield f'groups       {len(found.groups)}, of {sum(g.units for g in found.groups)} units'


def _shares_table(found: Analysis) -> Table:
    """Return a line for each kind of structure, and below it one for each reason that holds it."""
    rows: list[tuple[str, ...]] = []
    for share in found.shares:
        total, free = share.cost, share.prunable_cost
        rows.append(
            (
                share.kind,
                str(share.units),
                str(share.prunable),
                format_share(total.params, found.cost.params),
                format_share(free.params, found.cost.params),
                format_share(total.macs, found.cost.macs),
                format_share(free.macs, found.cost.macs),
            )
        )
        for held in share.held:
            params = format_share(held.cost.params, found.cost.params)
            macs = format_share(held.cost.macs, found.cost.macs)
            rows.append((f'  held: {held.reason}', str(held.units), '', params, '', macs, ''))
    names = ('kind', 'units', 'can go', 'params', 'can go', 'MACs', 'can go')
    return make_table('Kinds of structure', names, rows, left=1)


def _groups_table(found: Analysis) -> Table:
    """Return a line for each group; with a column for mixing operations if there are any."""
    names, numbers = ['group'], ['units', 'layers', 'MACs', 'of all', 'params', 'of all']
    rows = [_group_row(group, found) for group in found.groups]
    if any(group.mixed for group in found.groups):
        names.append('mixed by')
        rows = [
            (group.name, _mixers(group.mixed), *row)
            for group, (_, *row) in zip(found.groups, rows, strict=True)
        ]
    return make_table('Groups', (*names, *numbers), rows, left=len(names))


def _group_row(group: GroupRow, found: Analysis) -> tuple[str, ...]:
    return (
        group.name,
        str(group.units),
        str(len(group.layers)),
        format_count(group.cost.macs),
        format_share(group.cost.macs, found.cost.macs),
        format_count(group.cost.params),
        format_share(group.cost.params, found.cost.params),
    )


def _mixers(operations: Iterable[str]) -> str:
    """Return the kinds of operations, with the number of times that each occurs."""
    kinds = Counter(operation.partition(' ')[0] for operation in operations)
    return ', '.join(kind if n == 1 else f'{kind} x{n}' for kind, n in kinds.items())


def as_dict(graph: ChannelGraph, found: Analysis) -> dict[str, Any]:
    """Return the analysis, the cost of every layer and every frozen dimension as plain values."""
    return {
        **dataclasses.asdict(found.cost),
        'prunable_params': found.prunable_params,
        'kinds': [dataclasses.asdict(share) for share in found.shares],
        'groups': [_group_dict(group) for group in found.groups],
        'layers': {path: dataclasses.asdict(cost) for path, cost in graph.layer_costs().items()},
        'frozen': [dataclasses.asdict(entry) for entry in graph.frozen],
        'notes': list(graph.notes),
    }


def _group_dict(group: GroupRow) -> dict[str, Any]:
    content = dataclasses.asdict(group)
    cost = content.pop('cost')
    return {**content, **cost}
