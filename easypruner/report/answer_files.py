"""The files of an answer: comparison.json, comparison.md, report.html and pictures."""

from __future__ import annotations

from pathlib import Path

from easypruner.base.files import write_json, write_whole
from easypruner.report.answer import (
    TITLES,
    Answer,
    answer_record,
    facts_of,
    methods_table,
)
from easypruner.report.answer_page import make_report
from easypruner.report.differences import COLUMNS, Difference, explain
from easypruner.report.markup import escape_markdown, markdown_table
from easypruner.report.pictures import draw_pictures

RECORD = 'comparison.json'
TABLE = 'comparison.md'
PAGE = 'report.html'


def write_answer(answer: Answer, folder: Path) -> list[Path]:
    """Write an answer into a folder; return the paths of its files.

    Raises:
        EasyPrunerError: no method has the name of the reference.
    """
    differences = answer.differences()
    drawn = draw_pictures(answer.comparison, folder) if answer.comparison.runs else []
    written = [folder / RECORD, folder / TABLE, folder / PAGE]
    write_whole(written[1], _markdown(answer, differences))
    write_whole(written[2], make_report(answer, differences))
    write_json(written[0], answer_record(answer, differences, drawn))
    return [*written, *drawn]


def _markdown(answer: Answer, differences: dict[str, list[Difference]]) -> str:
    parts = [
        f'# {escape_markdown(answer.title)}\n',
        markdown_table(*methods_table(answer.comparison)),
    ]
    parts += [f'{escape_markdown(fact)}\n' for fact in facts_of(answer.comparison)]
    for name, found in differences.items():
        parts.append(f'## Differences {TITLES[name]}\n')
        parts.append(markdown_table(COLUMNS, [entry.cells() for entry in found]))
        parts += [f'{escape_markdown(line)}\n' for line in explain(found)]
    if answer.notes:
        parts.append('## Before you compare\n')
        parts.append(''.join(f'- {escape_markdown(note)}\n' for note in answer.notes))
    if answer.missing:
        parts.append('## Runs without a result\n')
        rows = [(run.name, run.status, run.reason) for run in answer.missing]
        parts.append(markdown_table(('run', 'status', 'reason'), rows))
    return '\n'.join(parts)
