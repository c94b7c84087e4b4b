"""Text for pages and Markdown. All of it may come from files of others, so all is escaped."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence

from easypruner.report.text import literal_text

# They begin or end something in Markdown, wherever they are.
_MARKDOWN = re.compile(r'([\\`*_{}\[\]<>|#~$&!])')


def escape(value: object) -> str:
    """Return text for HTML and SVG, in elements and in quoted attributes.

    >>> escape('<b a="1">')
    '&lt;b a=&quot;1&quot;&gt;'
    """
    return html.escape(literal_text(str(value)).plain)


def escape_markdown(value: object) -> str:
    r"""Return text for a cell of a Markdown table.

    >>> escape_markdown('a|b_c')
    'a\\|b\\_c'
    """
    text = literal_text(str(value)).plain
    return _MARKDOWN.sub(r'\\\1', ' '.join(text.split()))


def html_table(columns: Sequence[str], rows: Iterable[Sequence[object]], left: int = 1) -> str:
    """Return a table that scrolls sideways where it is too wide.

    Args:
        columns: the headings.
        rows: the cells.
        left: the number of columns of names, which are aligned to the left.
    """

    def cells(values: Sequence[object], tag: str) -> str:
        return ''.join(
            f'<{tag}{"" if number < left else " class=n"}>{escape(value)}</{tag}>'
            for number, value in enumerate(values)
        )

    body = ''.join(f'<tr>{cells(row, "td")}</tr>' for row in rows)
    head = f'<thead><tr>{cells(columns, "th")}</tr></thead>'
    return f'<div class="wide"><table>{head}<tbody>{body}</tbody></table></div>'


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table."""
    lines = [columns, ['--'] * len(columns), *rows]
    cells = [[*map(escape_markdown, line)] if n != 1 else line for n, line in enumerate(lines)]
    return ''.join(f'| {" | ".join(map(str, line))} |\n' for line in cells)


def paragraphs(lines: Iterable[str], kind: str = '') -> str:
    """Return each line as a paragraph of a class."""
    name = f' class="{escape(kind)}"' if kind else ''
    return ''.join(f'<p{name}>{escape(line)}</p>' for line in lines)


def items(lines: Iterable[str]) -> str:
    """Return a list of lines; '' without any."""
    entries = ''.join(f'<li>{escape(line)}</li>' for line in lines)
    return f'<ul>{entries}</ul>' if entries else ''
