"""The command ``easypruner store``: the finished stages that runs share."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from easypruner.cli.options import CommonArguments, expecting, option, positional
from easypruner.errors import ConfigError


@expecting('a number of days of at least 0')
def parse_days(text: str) -> float:
    """Convert the text of an option to a finite number of days, at least 0."""
    days = float(text)
    if not 0 <= days <= 1e5:
        raise ValueError
    return days


@dataclass(frozen=True, kw_only=True)
class StoreArguments(CommonArguments):
    """The arguments of ``easypruner store``."""

    action: Literal['list', 'prune'] = positional(
        'list: list the stages; prune: remove those that were not used for some time, and what is '
        'damaged',
        choices=('list', 'prune'),
    )
    store: str | None = option(
        "folder of the store; default: that of studies, in the user's cache", metavar='DIR'
    )
    days: float = option(
        'prune stages that were not used for so many days; default: 30',
        type=parse_days,
        metavar='N',
        default=30.0,
    )


def store(arguments: StoreArguments) -> int:
    """List the stages of a store, or remove those that were not used for some time.

    Raises:
        EasyPrunerError: there is no store in the folder.
    """
    # rich is slow to import, and --help has to be fast.
    from rich.markup import escape
    from rich.table import Table

    from easypruner.base.store import Store, default_store
    from easypruner.report.text import format_duration, format_size, plural, report_console

    folder = Path(arguments.store) if arguments.store else default_store()
    if not folder.exists():
        raise ConfigError(
            f'there is no store {str(folder)!r}; runs with --store and studies create one'
        )
    console, found = report_console(), Store(folder)
    if arguments.action == 'prune':
        damaged, removed = found.damaged(), found.prune(arguments.days)
        size = format_size(sum(entry.bytes for entry in removed))
        more = f', and {plural(damaged, "damaged stage")}' if damaged else ''
        text = f'removed {plural(len(removed), "stage")}, {size}{more}'
        console.print(text, highlight=False)
        return 0
    entries = found.entries()
    table = Table('stage', 'of', 'seed', 'took', 'size', 'not used for', box=None)
    for entry in entries:
        about, unused = entry.about, format_duration(max(0.0, time.time() - entry.used))
        took = format_duration(float(about.get('seconds', 0)))
        cells = (*(str(about.get(key, '')) for key in ('stage', 'config', 'seed')), took)
        table.add_row(*map(escape, (*cells, format_size(entry.bytes), unused)))
    console.print(table)
    total = format_size(sum(entry.bytes for entry in entries))
    text = f'{plural(len(entries), "stage")}, {total}, in {folder}'
    if damaged := found.damaged():
        text += f'; {damaged} more cannot be read: easypruner store prune removes them'
    console.print(text, highlight=False, markup=False)
    return 0
