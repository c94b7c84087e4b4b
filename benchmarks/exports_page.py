"""Writes the table of exported architectures into docs/export.md."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from easypruner.base.files import write_whole
from easypruner.report.text import format_size

BEGIN = '<!-- written by benchmarks/exports.py: begin -->'
END = '<!-- written by benchmarks/exports.py: end -->'
_LONGEST = 240


def update_page(page: Path, content: Mapping[str, Any]) -> None:
    """Replace the part of a page between the markers."""
    text = page.read_text(encoding='utf-8')
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    write_whole(page, f'{before}{BEGIN}\n\n{table(content)}\n{END}{after}')


def table(content: Mapping[str, Any]) -> str:
    """Return the table of the models, and below it what was not exported."""
    rows: Sequence[Mapping[str, Any]] = content['models']
    exported = [row for row in rows if row['error'] is not None]
    machine = ', '.join([content['machine']['processor'], *_versions(content['machine'])])
    lines = [
        f'{len(exported)} of {len(rows)} architectures were exported. {machine}.',
        '',
        '| library | model | inputs | params left | file | batch | largest error |',
        '| -- | -- | -- | -- | -- | -- | -- |',
        *map(_line, exported),
        '',
    ]
    fixed = [row for row in exported if not row['dynamic_batch']]
    if fixed:
        lines += ['The batch is fixed in:', '', *_reasons(fixed, 'note'), '']
    missing = [row for row in rows if row['error'] is None]
    if missing:
        lines += ['Not exported, with the reason of the exporter:', '']
        lines += [*_reasons(missing, 'reason'), '']
    return '\n'.join(lines)


def _versions(machine: Mapping[str, str]) -> Iterator[str]:
    return (f'{name} {version}' for name, version in machine.items() if name != 'processor')


def _line(row: Mapping[str, Any]) -> str:
    cells = (
        row['source'],
        f'`{row["name"]}`',
        ', '.join(row['inputs']),
        f'{100 * row["params"]:.0f} %',
        format_size(row['bytes']),
        'any' if row['dynamic_batch'] else 'fixed',
        f'{row["error"]:.0e}',
    )
    return f'| {" | ".join(cells)} |'


def _reasons(rows: Sequence[Mapping[str, Any]], key: str) -> Iterator[str]:
    for row in rows:
        reason = ' '.join(row[key].split())
        short = reason if len(reason) <= _LONGEST else f'{reason[:_LONGEST]} ...'
        yield f'- {row["source"]} `{row["name"]}`: {short.replace("<", "&lt;")}'
